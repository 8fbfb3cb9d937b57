"""The discounted return of each token, and the loss whose gradient is the policy gradient.

Leaves out: what is subtracted from the return (see baselines and advantages).
"""

import torch
from torch import Tensor

from llmref._require import require_in
from llmref.functional._tokens import token_mask
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.rl._tokens import (
    last_values,
    narrowed,
    token_advantages,
    token_log_probs,
    token_values,
)


def discounted_returns(
    rewards: Tensor,
    mask: Tensor | None = None,
    *,
    gamma: float = 1.0,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Sum the rewards from each token on, discounted by the counted tokens between.

    Shapes: rewards (N, T), mask (N, T) or None for all, bootstrap (N,) -> (N, T), 0 where the mask
    leaves out
    Source: Sutton & Barto 2018, section 3.3.
    Differs: a position that the mask leaves out costs no discount, and a reward written there is
    lost: the reward of a whole response belongs on its last counted token. `bootstrap` is the
    value of the state after that token; without it the response ends there.
    Raises: ValueError for gamma outside [0, 1], a mask or bootstrap that does not fit, a counted
    reward or a bootstrap that is not finite, a return that overflows; TypeError for integer
    rewards.
    """
    require_in("[0, 1]", gamma=gamma)
    counted = token_mask(mask, rewards=rewards)
    kept = token_values("rewards", rewards, counted, constant=False)
    following = last_values(bootstrap, kept, constant=False)  # (N,)
    returns = []
    for t in reversed(range(rewards.shape[1])):
        here = counted[:, t]
        following = torch.where(here, kept[:, t] + gamma * following, following)
        returns.append(torch.where(here, following, 0.0))  # eq. eq-pg-returns
    if not returns:
        return rewards.clone()
    return narrowed(torch.stack(returns[::-1], dim=1), rewards.dtype, "a return")


def reinforce_loss(
    logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """The loss whose gradient, on-policy, is minus the policy gradient; its value means nothing.

    A piece of a batch: agg="constant", norm = tokens of all pieces / N of this one; see aggregate.
    Shapes: logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Williams 1992.
    Differs: a mean over tokens divides by a length that the policy itself chose, and is then not
    proportional to the gradient of the expected reward; agg="constant" takes a norm.
    Raises: ValueError if advantages require grad, do not fit or are not finite where the mask
    counts, for an invalid counted log-probability, a loss that overflows, an empty row or an
    unknown agg; TypeError for integers.
    """
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    weights = token_advantages(advantages, counted)
    loss = aggregate(-weights * pi, counted, agg=agg, norm=norm)  # eq. eq-pg-loss
    return narrowed(loss, logp.dtype, "the loss")
