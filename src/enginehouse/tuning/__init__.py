"""Hyperparameter tuning: what trials report, and the studies that choose their parameters."""
