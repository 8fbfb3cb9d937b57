"""Exercises on reinforcement learning from rewards and preferences."""
