"""Where replicas run. `base` is the contract; each other folder is one place."""
