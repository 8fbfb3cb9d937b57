"""How does a cheap draft speed up a large model, and leave the distribution of its text as it is?

Leaves out: the passes of the two models, their caches, and trees of several drafts.
"""

import math
from bisect import bisect_left

import torch
from torch import Tensor

from llmref._numeric import bounded, check_distribution, minimum, wide_dtype, widen
from llmref._require import (
    require_floating,
    require_ids,
    require_in,
    require_index,
    require_number,
    require_shapes,
)


def acceptance_rate(target_probs: Tensor, draft_probs: Tensor) -> Tensor:
    """How often a drafted token is kept: the mass that the two distributions share.

    (1/2, 1/2) and (9/10, 1/10) share 1/2 + 1/10. It is 1 minus the total variation distance.
    Shapes: target_probs (..., V), draft_probs (..., V) -> (...)
    Source: Leviathan, Kalman & Matias 2022, arXiv:2211.17192, section 3.
    Differs: rows are divided by their sum first, which rounding leaves near 1.
    Raises: TypeError unless both are floating point; ValueError if the shapes differ, or a row is
    no distribution.
    """
    require_shapes(
        "target_probs (..., V), draft_probs (..., V)",
        target_probs=target_probs,
        draft_probs=draft_probs,
    )
    p, q = _rows(target_probs, "target_probs"), _rows(draft_probs, "draft_probs")
    shared = bounded(minimum(p, q).sum(-1), 0.0, 1.0)  # eq. eq-speculative-acceptance
    return shared.to(torch.promote_types(target_probs.dtype, draft_probs.dtype))


def residual_probs(target_probs: Tensor, draft_probs: Tensor) -> Tensor:
    """What replaces a refused token: the part of the target above the draft, normalised.

    (1/2, 1/2) above (9/10, 1/10) is (0, 2/5), which becomes (0, 1).
    Shapes: target_probs (..., V), draft_probs (..., V) -> (..., V)
    Source: Leviathan, Kalman & Matias 2022, arXiv:2211.17192, algorithm 1.
    Differs: where the two are equal, and nothing is above, it is the target.
    Raises: as acceptance_rate.
    """
    require_shapes(
        "target_probs (..., V), draft_probs (..., V)",
        target_probs=target_probs,
        draft_probs=draft_probs,
    )
    p, q = _rows(target_probs, "target_probs"), _rows(draft_probs, "draft_probs")
    # eq. eq-speculative
    return _residual(p, q).to(torch.promote_types(target_probs.dtype, draft_probs.dtype))


def speculative_step(
    target_probs: Tensor, draft_probs: Tensor, draft_tokens: Tensor, uniforms: Tensor
) -> Tensor:
    """Keep drafted tokens up to the first refusal, and draw one token more from the target.

    Token i is kept if uniforms[i] q < p. After a refusal the last uniform draws from the residual,
    after none from the last row of the target, by the inverse of the distribution function. With
    K = 0 it is plain sampling.
    Shapes: target_probs (K + 1, V), draft_probs (K, V), draft_tokens (K,), uniforms (K + 1,), as by
    torch.rand -> (n + 1,), where n drafts were kept
    Source: Leviathan, Kalman & Matias 2022, arXiv:2211.17192, algorithm 1.
    Differs: rows are divided by their sum first, which rounding leaves near 1; a token that the
    target never gives is refused also at a uniform of 0; computes in float64; where no residual is
    left, by rounding, draws from the target.
    Raises: TypeError for wrong dtypes; ValueError for wrong shapes, a row that is no distribution,
    an id outside [0, V), a drafted token that the draft cannot have drawn, or a uniform outside
    [0, 1).
    """
    require_floating(target_probs=target_probs, draft_probs=draft_probs)
    require_shapes(
        "draft_probs (K, V), draft_tokens (K,)", draft_probs=draft_probs, draft_tokens=draft_tokens
    )
    K, V = draft_probs.shape
    if target_probs.shape != (K + 1, V):
        raise ValueError(
            f"target_probs must be (K + 1, V) = ({K + 1}, {V}) beside draft_probs ({K}, {V}), "
            f"got {tuple(target_probs.shape)}"
        )
    require_shapes(
        "target_probs (n, V), uniforms (n,)", target_probs=target_probs, uniforms=uniforms
    )
    p = _rows(target_probs, "target_probs", torch.float64)
    q = _rows(draft_probs, "draft_probs", torch.float64)
    require_ids(V, draft_tokens=draft_tokens)
    u = widen(uniforms, "uniforms").double()
    require_in("[0, 1)", uniforms=u)
    tokens = draft_tokens.long()
    drafted = q.gather(-1, tokens[:, None])[:, 0]  # (K,)
    if not (drafted > 0).all():
        place = int((drafted == 0).nonzero()[0])
        raise ValueError(
            f"draft_tokens[{place}] = {int(tokens[place])} has the probability 0 in draft_probs: "
            "it was not drawn from this distribution"
        )
    kept = u[:-1] * drafted < p[:-1].gather(-1, tokens[:, None])[:, 0]  # eq. eq-speculative-keep
    n = int(kept.long().cumprod(0).sum())
    mass = (p[n] if n == K else _residual(p[n], q[n])).cumsum(0)
    last = torch.searchsorted(mass, u[-1:] * mass[-1], right=True)
    return torch.cat([tokens[:n], last])


def expected_tokens(acceptance: float, draft_length: int) -> float:
    """Mean number of tokens a step, if each draft is kept with one probability, whatever came.

    Acceptance 1/2, two drafts: 1 + 1/2 + 1/4.
    Source: Leviathan, Kalman & Matias 2022, arXiv:2211.17192, section 3.
    Raises: TypeError unless acceptance is a number and draft_length an int; ValueError unless
    acceptance is in [0, 1] and draft_length at least 0 and below 2^63.
    """
    require_number(acceptance=acceptance)
    require_in("[0, 1]", acceptance=acceptance)
    require_index(0, draft_length=draft_length)
    alpha = float(acceptance)
    if draft_length == 0 or alpha == 0:
        return 1.0
    if alpha == 1:
        return float(draft_length + 1)
    # eq. eq-speculative-geometric; expm1 keeps the digits of an acceptance near 1
    return -math.expm1((draft_length + 1) * math.log(alpha)) / (1 - alpha)


def speedup(acceptance: float, draft_length: int, *, draft_cost: float) -> float:
    """Tokens per unit of time, relative to the target alone, which gives one a pass.

    draft_cost is the time of one pass of the draft, in passes of the target; one pass of the target
    over the drafts costs as much as over one token. If each drafted token adds to that pass, add it
    to draft_cost.
    Source: Leviathan, Kalman & Matias 2022, arXiv:2211.17192, section 3.
    Raises: as expected_tokens; ValueError unless draft_cost is finite and at least 0.
    """
    require_number(draft_cost=draft_cost)
    require_in("[0, inf)", draft_cost=draft_cost)
    # eq. eq-speculative-speedup
    return expected_tokens(acceptance, draft_length) / (float(draft_cost) * draft_length + 1)


def best_draft_length(acceptance: float, *, draft_cost: float, max_length: int) -> int:
    """The number of drafts with the largest speed-up, the least of equal ones.

    It is 0 where drafts do not pay. If they are free and sometimes kept, or all kept and cheaper
    than the target, the more the better: then it is max_length.
    Source: the difference of the speed-up of Leviathan, Kalman & Matias 2022, arXiv:2211.17192.
    Raises: as speedup; TypeError or ValueError unless max_length is an int of at least 0 and below
    2^63.
    """
    require_index(0, max_length=max_length)
    speedup(acceptance, 0, draft_cost=draft_cost)  # refuses what it would refuse at any length
    alpha, cost = float(acceptance), float(draft_cost)
    if alpha <= cost:
        return 0
    if cost == 0 or alpha == 1:
        return max_length

    def enough(drafts: int) -> bool:
        # eq. eq-speculative-best
        gain = alpha ** (drafts + 1)
        return gain * (cost * drafts + 1) <= cost * expected_tokens(alpha, drafts)

    return bisect_left(range(max_length), True, key=enough)


def _rows(probs: Tensor, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Checked distributions, in float32 at least, divided by what rounding made of their sum."""
    check_distribution(probs, name=name)
    wide = probs.to(wide_dtype(probs) if dtype is None else dtype)
    return wide / wide.sum(-1, keepdim=True)


def _residual(p: Tensor, q: Tensor) -> Tensor:
    above = torch.where(p > q, p - q, 0.0)
    total = above.sum(-1, keepdim=True)
    return torch.where(total > 0, above / torch.where(total > 0, total, 1.0), p)
