"""The outer loop of STaR: what an iteration does.

`iteration.py` has the phases in their order.
"""
