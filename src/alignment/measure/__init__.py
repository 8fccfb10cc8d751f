"""Measuring a model on held-out rows: metrics, generation, log-probabilities, scores."""
