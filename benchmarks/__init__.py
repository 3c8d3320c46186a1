"""Speed and memory, measured by hand and never by the tests."""
