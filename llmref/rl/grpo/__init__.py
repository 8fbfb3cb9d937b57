"""What does GRPO optimise once its two normalisers are taken seriously?

advantages: from the rewards of a group. losses: with a KL term, and the presets Dr. GRPO and DAPO.
Leaves out: sampling and filtering of groups, one ratio a sequence (see gspo), the clip (see ppo).
"""

from llmref.rl.grpo.advantages import (
    binary_group_weight,
    group_advantages,
)
from llmref.rl.grpo.losses import (
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
)

__all__ = [
    "binary_group_weight",
    "dapo_loss",
    "dr_grpo_loss",
    "group_advantages",
    "grpo_loss",
]
