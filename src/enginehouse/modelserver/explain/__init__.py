"""Explanations: how much each feature of an instance added to the model's score, against a baseline.

A request passes `explainer` as a prediction passes an adapter: `prepare`, perhaps `merge`, `run`. The adapter gives a
`target.Target`, the model as a function from arrays to scores; `gradients` (integrated gradients), `shapley` (sampled
Shapley) and `xrai` ask it many times. `metadata` reads `explanation_metadata.json`, `answers` writes the answer.
"""
