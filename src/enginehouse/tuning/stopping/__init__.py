"""Whether a trial that goes on is worth it: one rule a file, over learning curves (curves.py)."""
