"""Gaussian process bandit: the default algorithm. designer.py is the way of a suggestion."""
