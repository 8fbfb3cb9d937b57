"""Reinforcement learning from rewards and preferences: KL penalties and policy gradients."""
