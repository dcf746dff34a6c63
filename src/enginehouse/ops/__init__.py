"""Running Enginehouse as a whole: the demo. Uses `mle` as a user would, and nothing of the engine's inside."""
