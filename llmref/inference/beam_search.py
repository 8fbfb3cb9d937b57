"""How is the most probable text searched for, where there are up to V^T of them?

beam_step keeps the best B of all candidates; beam_search repeats it until no live beam can win; and
certificate says when the text found is the best of all texts. Leaves out: batches of prompts,
several EOS tokens, the cache (its rows follow `parents`), sampling, and diverse beams.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_axis,
    require_choice,
    require_floating,
    require_in,
    require_index,
    require_int,
    require_integers,
    require_number,
    require_shapes,
)

Finish = Literal["ranked", "any"]


class BeamResult(NamedTuple):
    """The best text that ended, and what was pruned on the way to it.

    tokens (n,) come without the prompt, and with EOS if it ended the text; logp (), score () and
    pruned () are in float32 at least. pruned is the largest log-probability of a candidate that
    was neither finished nor kept; -inf if there was none.
    """

    tokens: Tensor
    logp: Tensor
    score: Tensor
    pruned: Tensor
    length_penalty: float
    max_new_tokens: int


def length_normalized_score(logp: Tensor, length: Tensor, *, alpha: float) -> Tensor:
    """The log-probability of a text over a power of its length.

    alpha = 0 is neutral, alpha > 0 favours long texts. length counts new tokens, EOS included. A
    positive logp, which is no log-probability, is divided all the same.
    Shapes: logp (...), length (...) -> (...), in float32 at least
    Source: transformers' length_penalty; Wu et al. 2016, arXiv:1609.08144, use ((5 + n) / 6)^alpha.
    Raises: TypeError for wrong dtypes; ValueError for shapes that differ, a logp of NaN or +inf, a
    length below 1, or a power that is not positive and finite in the dtype.
    """
    wide = widen(logp, "logp")
    require_integers(length=length)
    require_shapes("logp (...), length (...)", logp=logp, length=length)
    require_number(alpha=alpha)
    require_in("[-inf, inf)", logp=wide)
    require_in("[1, inf)", length=length)
    power = length.to(wide.dtype) ** alpha
    require_in("(0, inf)", hint=f" for alpha = {alpha}", length_to_the_alpha=power)
    return wide / power  # eq. eq-beam-score


def beam_step(
    logp: Tensor, next_log_probs: Tensor, *, num_beams: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable of all one-token extensions of the beams, the best one first.

    Of tied candidates the one of the lower beam, then of the lower token, is first. Those of
    probability 0 are dropped, so fewer than num_beams may come back.
    Shapes: logp (b,), next_log_probs (b, V) -> scores, parents, tokens, each (k,), k <= num_beams
    Source: the definition.
    Differs: scores are in float32 at least; a log-probability above 0, by rounding, counts as 0.
    Raises: TypeError for wrong dtypes; ValueError for num_beams outside [1, 2^63), other shapes, a
    logp of NaN or +inf, a row of next_log_probs whose probabilities do not sum to 1, or no
    candidate that is possible.
    """
    require_index(1, num_beams=num_beams)
    start, rows = widen(logp, "logp"), widen(next_log_probs, "next_log_probs")
    require_shapes("logp (b), next_log_probs (b, V)", logp=logp, next_log_probs=next_log_probs)
    require_axis("V", 1, "next_log_probs (b, V)", next_log_probs=next_log_probs)
    require_in("[-inf, inf)", logp=start)
    _require_normalised(rows, next_log_probs.dtype)
    total = (
        start[:, None] + torch.where(rows > 0, 0.0, rows)
    ).flatten()  # eq. eq-beam-step, (b V,)
    order = total.argsort(descending=True, stable=True)[:num_beams]
    order = order[total[order] > -math.inf]
    if not order.numel():
        why = "every beam has log-probability -inf" if len(start) else "there is no beam"
        raise ValueError(f"no candidate is possible: {why}")
    return total[order], order // rows.shape[1], order % rows.shape[1]


def beam_search(
    next_log_probs: Callable[[Tensor], Tensor],
    prompt: Tensor,
    *,
    num_beams: int,
    max_new_tokens: int,
    eos_token_id: int | None,
    length_penalty: float,
    finish: Finish,
) -> BeamResult:
    """Extend the num_beams most probable prefixes token by token; the best score that ended wins.

    next_log_probs takes all tokens of the live beams, the prompt included, (b, t), and returns the
    log-probabilities of their next token, (b, V). A text ends with EOS (None: there is none) or at
    max_new_tokens. finish: "ranked" counts an ended text only among the first num_beams candidates
    of its step, as transformers does; "any" counts every one. Of equal scores the first found wins.
    It stops as soon as no live beam can have a better score, and returns what the full run would.
    Shapes: prompt (P,) -> BeamResult
    Source: derived here; transformers' generate(num_beams=, early_stopping="never") for "ranked".
    Raises: as beam_step and length_normalized_score; TypeError for a prompt that holds no integers,
    or an EOS that is no int; ValueError for max_new_tokens outside [1, 2^63), an EOS outside the
    vocabulary, or an unknown finish.
    """
    require_index(1, num_beams=num_beams, max_new_tokens=max_new_tokens)
    require_choice(Finish, finish=finish)
    if eos_token_id is not None:
        require_int(eos_token_id=eos_token_id)
    require_integers(prompt=prompt)
    require_shapes("prompt (P)", prompt=prompt)
    require_number(length_penalty=length_penalty)
    live, best = prompt.long()[None], None
    logp = torch.zeros(1, dtype=torch.float32, device=prompt.device)  # one beam: no equal copies
    pruned = torch.full_like(logp, -math.inf)
    for t in range(1, max_new_tokens + 1):
        rows = next_log_probs(live)
        scores, parents, tokens = beam_step(logp, rows, num_beams=max(rows.numel(), 1))
        ended = _ends(tokens, eos_token_id, rows.shape[1]) | (t == max_new_tokens)
        first = torch.arange(len(scores), device=ended.device) < num_beams
        counted = ended & first if finish == "ranked" else ended
        kept = ~ended & ((~ended).cumsum(0) <= num_beams)
        pruned = torch.cat([pruned, scores[~counted & ~kept][:1]])
        for i in counted.nonzero().flatten()[:1]:  # of one length: the first is the best
            score = _score(scores[i], t, length_penalty)
            if best is None or score > best[2]:
                text = torch.cat([live[parents[i], len(prompt) :], tokens[i, None]])
                best = text, scores[i], score
        live = torch.cat([live[parents[kept]], tokens[kept, None]], 1)  # rows follow their parents
        logp = scores[kept]
        longest = max_new_tokens if length_penalty > 0 else t + 1
        if best is not None and (
            not len(live) or best[2] >= _score(logp[0], longest, length_penalty)
        ):  # eq. eq-beam-stop
            break
    assert best is not None  # all candidates of the last step ended
    return BeamResult(*best, pruned.max(), float(length_penalty), max_new_tokens)


def certificate(result: BeamResult) -> bool:
    """Whether what was pruned proves that no text, found or not, has a better score.

    With length_penalty 0 the text is then a mode, a most probable text. False proves nothing.
    Source: derived here.
    Differs: an equality that holds in exact arithmetic may be lost, or won, by rounding.
    """
    require_floating(pruned=result.pruned, score=result.score)
    require_shapes("pruned (), score ()", pruned=result.pruned, score=result.score)
    alpha = result.length_penalty
    longest = result.max_new_tokens if alpha > 0 else 1
    bound = _score(result.pruned, longest, alpha)
    return bool(result.score >= bound)  # eq. eq-beam-certificate


def _score(logp: Tensor, length: int, alpha: float) -> Tensor:
    return length_normalized_score(logp, torch.tensor(length, device=logp.device), alpha=alpha)


def _ends(tokens: Tensor, eos_token_id: int | None, size: int) -> Tensor:
    """Which candidates end with EOS."""
    if eos_token_id is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    require_in(f"[0, {size})", eos_token_id=eos_token_id)
    return tokens == eos_token_id


def _require_normalised(rows: Tensor, dtype: torch.dtype) -> None:
    """Refuse rows that are no log-probabilities; rounding each entry moves the sum by eps log V."""
    total = rows.detach().logsumexp(-1).exp()
    allowed = 1e-4 + torch.finfo(dtype).eps * math.log(rows.shape[1] + 1)
    bad = total[~((total - 1).abs() <= allowed)]
    if bad.numel():
        raise ValueError(
            "next_log_probs must be log-probabilities, whose exponentials sum to 1 in each row, "
            f"got a sum of {bad[0].item():g}"
        )
