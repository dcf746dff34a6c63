"""How a study chooses its parameters: one contract (base.py), one file or folder for each algorithm."""
