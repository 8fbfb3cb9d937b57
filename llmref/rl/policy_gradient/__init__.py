"""Why may I subtract a baseline, and which one is unbiased?

reinforce: the return of each token, and the loss whose gradient is the policy gradient. baselines,
advantages: what goes into it in place of the return. Leaves out: importance ratios and clipping
(see ppo), division by a group's standard deviation, the training of a critic.
"""

from llmref.rl.policy_gradient.advantages import (
    gae,
    k_step_advantage,
)
from llmref.rl.policy_gradient.baselines import (
    masked_whiten,
    mean_baseline_advantages,
    optimal_baseline,
    rloo_advantages,
)
from llmref.rl.policy_gradient.reinforce import (
    discounted_returns,
    reinforce_loss,
)

__all__ = [
    "discounted_returns",
    "gae",
    "k_step_advantage",
    "masked_whiten",
    "mean_baseline_advantages",
    "optimal_baseline",
    "reinforce_loss",
    "rloo_advantages",
]
