"""Right solutions on beam search, each written in another way than the code by hand."""

import heapq
import math
from collections.abc import Callable

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]


def of_lists(
    model: Model, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> tuple[float, list[int]]:
    """Plain Python; each beam is a pair, and nothing stops it before T."""
    beams, best = [(0.0, prompt.tolist())], (-math.inf, prompt.tolist())
    for n in range(1, T + 1):
        candidates = [
            (logp + row[token], [*text, token])
            for logp, text in beams
            for row in [model(torch.tensor([text]))[0].tolist()]
            for token in range(len(row))
        ]
        candidates.sort(key=lambda it: -it[0])
        for logp, text in candidates[:B]:
            if text[-1] == eos or n == T:
                best = max(best, (logp / n**alpha, text), key=lambda it: it[0])
        beams = [it for it in candidates if it[1][-1] != eos][:B]
    return best


def with_slots(
    model: Model, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> tuple[Tensor, Tensor]:
    """B slots from the start, all but the first at minus infinity; EOS is masked afterwards."""
    score = torch.full((B,), -torch.inf)
    score[0] = 0
    texts = prompt.repeat(B, 1)
    best, best_text = torch.tensor(-torch.inf), prompt
    for n in range(1, T + 1):
        total = score[:, None] + torch.log_softmax(model(texts), -1)
        V = total.shape[1]
        first, where = total.view(-1).sort(descending=True, stable=True)
        for i in range(min(B, len(first))):
            if (where[i] % V == eos or n == T) and first[i] / n**alpha > best:
                best = first[i] / n**alpha
                best_text = torch.cat([texts[where[i] // V], where[i : i + 1] % V])
        total[:, eos] = -torch.inf
        score, where = total.view(-1).sort(descending=True, stable=True)
        score, where = score[:B], where[:B]
        texts = torch.hstack([texts[where // V], (where % V)[:, None]])
    return best, best_text


def with_a_heap(
    model: Model, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> tuple[Tensor, Tensor]:
    live, finished = [(torch.zeros(()), prompt)], []
    for n in range(1, T + 1):
        rows = model(torch.stack([text for _, text in live]))
        grown = [
            (logp + p, torch.cat([text, torch.tensor([token])]))
            for (logp, text), row in zip(live, rows, strict=True)
            for token, p in enumerate(row)
        ]
        ranked = heapq.nlargest(2 * B, grown, key=lambda it: float(it[0]))
        finished += [
            (logp / n**alpha, text) for logp, text in ranked[:B] if n == T or text[-1] == eos
        ]
        live = [it for it in ranked if it[1][-1] != eos][:B]
        top = max([float(score) for score, _ in finished], default=-math.inf)
        if not live or top > float(live[0][0]) / T**alpha:
            break
    return max(finished, key=lambda it: float(it[0]))


SOLUTIONS = {"beam_search": [of_lists, with_slots, with_a_heap]}
