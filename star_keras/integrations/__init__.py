"""Models of this package in other frameworks. Knows nothing of STaR."""
