"""The outer loop of STaR: what an iteration does, and what a run keeps of it.

`iteration.py` has the phases in their order.
"""
