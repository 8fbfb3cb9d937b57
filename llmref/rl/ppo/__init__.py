"""What does clipping do to the gradient, and what does it not guarantee?

surrogate: the importance ratio, the clipped surrogate and its loss. terms: the loss of the critic
and the entropy bonus. Leaves out: advantages (see policy_gradient), KL penalties (see kl), sequence
ratios (see gspo).
"""

from llmref.rl.ppo.surrogate import (
    clip_fraction,
    clipped_surrogate,
    importance_ratio,
    ppo_policy_loss,
)
from llmref.rl.ppo.terms import (
    categorical_entropy,
    clipped_value_loss,
    entropy_bonus,
)

__all__ = [
    "categorical_entropy",
    "clip_fraction",
    "clipped_surrogate",
    "clipped_value_loss",
    "entropy_bonus",
    "importance_ratio",
    "ppo_policy_loss",
]
