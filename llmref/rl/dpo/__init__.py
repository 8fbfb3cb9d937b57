"""Where does the reward model go, and what does the loss really constrain?

policy: the policy that KL-regularised reward maximisation ends in, and the reward that a policy
implies. losses: on preference pairs; one row is one pair. A response's log-probability is the sum
over its tokens, in nats. Leaves out: losses on single responses (KTO), on odds (ORPO),
f-divergences other than KL.
"""

from llmref.rl.dpo.losses import (
    dpo_loss,
    simpo_loss,
)
from llmref.rl.dpo.policy import (
    aligned_sequence_logprob,
    implicit_reward,
    optimal_policy,
)

__all__ = [
    "aligned_sequence_logprob",
    "dpo_loss",
    "implicit_reward",
    "optimal_policy",
    "simpo_loss",
]
