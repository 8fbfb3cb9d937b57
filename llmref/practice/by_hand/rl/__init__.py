"""Losses and estimators of reinforcement learning, by hand."""
