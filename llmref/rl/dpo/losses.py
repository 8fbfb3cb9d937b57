"""The losses on preference pairs that follow from the reward that a policy implies.

Leaves out: how a response's log-probability is summed (see policy).
"""

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from llmref._numeric import Reduction, reduce_rows
from llmref._require import (
    require_at_least,
    require_choice,
    require_in,
    require_integers,
    require_number,
    require_positive,
    require_shapes,
    require_tensor,
)
from llmref.functional.activations import relu
from llmref.rl._tokens import log_probs, narrowed
from llmref.rl.dpo._ratio import log_ratio

LossType = Literal["sigmoid", "ipo", "hinge", "robust"]


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    loss_type: LossType = "sigmoid",
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """How badly the implied rewards rank each pair: the loss of DPO, cDPO, robust DPO or IPO.

    For "ipo", beta is that paper's tau, and the gap of the log-ratios is not multiplied by it.

    Shapes: four times (N,) -> (), or (N,) with reduction="none"
    Source: Rafailov et al. 2023, arXiv:2305.18290 (sigmoid); Mitchell 2023 (label_smoothing);
    Chowdhury et al. 2024, arXiv:2403.00409 (robust); Azar et al. 2023, arXiv:2310.12036 (ipo).
    Differs: label_smoothing is used wherever it has a meaning, and refused elsewhere.
    Raises: ValueError for an unknown loss_type or reduction, beta not positive, label_smoothing
    outside [0, 0.5) or with ipo and hinge, no pair, tensors that are not (N,), references that
    require grad, log-probabilities that are not finite or above 1e-6, a loss that overflows;
    TypeError for integers.
    """
    _require_options(loss_type, beta, label_smoothing)
    _require_pairs(policy_chosen_logps, policy_rejected_logps)
    chosen = log_ratio("chosen_", policy_chosen_logps, ref_chosen_logps)
    gap = chosen - log_ratio("rejected_", policy_rejected_logps, ref_rejected_logps)
    if loss_type == "ipo":
        loss = (gap - 1 / (2 * beta)).square()  # eq. eq-dpo-ipo
    elif loss_type == "hinge":
        loss = relu(1 - beta * gap)  # eq. eq-dpo-hinge
    else:
        loss = _logistic(beta * gap, label_smoothing, debias=loss_type == "robust")
    return narrowed(reduce_rows(loss, reduction), policy_chosen_logps.dtype, "the loss")


def simpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> Tensor:
    """The loss on mean log-probabilities with a margin and without a reference, to be minimised.

    Shapes: four times (N,) -> ()
    Source: Meng et al. 2024, arXiv:2405.14734.
    Differs: gamma is subtracted as in the paper; some code divides it by beta and then multiplies.
    Raises: ValueError for beta not positive, gamma negative, lengths that are not positive, no
    pair, tensors that are not (N,), log-probabilities that are not finite or above 1e-6, a loss
    that overflows; TypeError for integer log-probabilities and lengths that are no integers.
    """
    require_number(beta=beta, gamma=gamma)
    require_positive(beta=beta)
    require_at_least(0, gamma=gamma)
    _require_pairs(policy_chosen_logps, policy_rejected_logps)
    chosen = _mean_logps("chosen_", policy_chosen_logps, chosen_lengths)
    rejected = _mean_logps("rejected_", policy_rejected_logps, rejected_lengths)
    margin = beta * (chosen - rejected) - gamma  # eq. eq-dpo-simpo
    return narrowed(-logsigmoid(margin).mean(), policy_chosen_logps.dtype, "the loss")


def _logistic(h: Tensor, smoothing: float, *, debias: bool) -> Tensor:
    """Logistic loss of the margin under label noise. log(sigmoid(h)) would be -inf at h = -89."""
    agrees, disagrees = -logsigmoid(h), -logsigmoid(-h)
    if debias:
        noisy = (1 - smoothing) * agrees - smoothing * disagrees
        return noisy / (1 - 2 * smoothing)  # eq. eq-dpo-robust
    return (1 - smoothing) * agrees + smoothing * disagrees  # eq. eq-dpo-cdpo


def _mean_logps(which: str, policy: Tensor, lengths: Tensor) -> Tensor:
    name, counts = f"policy_{which}logps", f"{which}lengths"
    require_shapes(f"{name} (N,), {counts} (N,)", **{name: policy, counts: lengths})
    require_integers(**{counts: lengths})
    require_positive(**{counts: lengths})
    return log_probs(name, policy) / lengths


def _require_pairs(chosen: Tensor, rejected: Tensor) -> None:
    named = {"policy_chosen_logps": chosen, "policy_rejected_logps": rejected}
    require_tensor(**named)
    require_shapes("policy_chosen_logps (N,), policy_rejected_logps (N,)", **named)
    if chosen.numel() == 0:
        raise ValueError("there is no pair: a mean over nothing does not exist")


def _require_options(loss_type: str, beta: float, smoothing: float) -> None:
    require_choice(LossType, loss_type=loss_type)
    require_number(beta=beta)
    require_positive(beta=beta)
    require_in("[0, 0.5)", label_smoothing=smoothing)
    if smoothing > 0 and loss_type in ("ipo", "hinge"):
        raise ValueError(f"label_smoothing has no meaning for loss_type={loss_type!r}")
