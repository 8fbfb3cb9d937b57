"""Right solutions on paged caches, each written in another way than the code by hand."""

from typing import Any

import torch
from torch import Tensor

Tokens = list[int]


def slots_by_loop(block_table: Tensor, positions: Tensor, b: int) -> list[int]:
    return [int(block_table[t // b]) * b + t % b for t in positions.tolist()]


def slots_by_rows(block_table: Tensor, positions: Tensor, b: int) -> Tensor:
    return (block_table[:, None] * b + torch.arange(b)).flatten()[positions]


def slots_by_divmod(block_table: Tensor, positions: Tensor, b: int) -> Tensor:
    logical = torch.div(positions, b, rounding_mode="floor")
    return positions + b * (block_table.gather(0, logical) - logical)


def append_used_slots(
    x: Tensor, pool: Tensor, table: Any, length: int, refs: Any, free: Any
) -> Any:
    """Only the slots in use are copied."""
    b, pool, table, refs, free = pool.shape[1], pool.clone(), table[:], refs[:], free[:]
    place = length % b
    if place and refs[table[-1]] == 1:
        pool[table[-1]][place] = x
        return pool, table, refs, free
    block = free.pop()
    refs[block] += 1
    if place:
        old = table.pop()
        pool[block, :place] = pool[old, :place]
        refs[old] -= 1
    table.append(block)
    pool[block, place] = x
    return pool, table, refs, free


def append_without_writes(
    x: Tensor, pool: Tensor, table: Any, length: int, refs: Any, free: Any
) -> Any:
    b = pool.shape[1]
    own = length % b > 0 and refs[table[-1]] == 1
    old = table[-1] if length % b else None
    new = old if own else free[-1]
    row = pool[new] if old is None else pool[old]
    row = torch.where((torch.arange(b) == length % b)[:, None], x, row)
    pool = torch.stack([row if i == new else pool[i] for i in range(len(pool))])
    change = [(i == new) - (i == old) for i in range(len(refs))]
    kept = [i for i in table if i != old]
    refs = [count + step for count, step in zip(refs, change, strict=True)]
    return pool, [*kept, new], refs, free if own else free[:-1]


def append_by_release(
    x: Tensor, pool: Tensor, table: Any, length: int, refs: Any, free: Any
) -> Any:
    """The old block is kept aside before anything is written."""
    b, pool, refs, free = pool.shape[1], pool.clone(), list(refs), list(free)
    rows = [pool[block].clone() for block in table] + [torch.zeros_like(pool[0])]
    table = list(table)
    if length % b == 0:
        table += [free.pop()]
        refs[table[-1]] = 1
    elif refs[table[-1]] != 1:
        refs[table[-1]] -= 1
        table[-1] = free.pop()
        refs[table[-1]] = 1
        pool[table[-1]] = rows[-2]
    pool[table[-1]].index_copy_(0, torch.tensor([length % b]), x[None])
    return pool, table, refs, free


def reuse_by_prefixes(prompt: Tokens, texts: list[Tokens], b: int) -> int:
    best = 0
    for text in texts:
        same = 0
        while same < min(len(prompt), len(text)) and prompt[same] == text[same]:
            same += 1
        best = max(best, min(same, len(prompt) - 1) // b)
    return best


def reuse_by_slices(prompt: Tokens, texts: list[Tokens], b: int) -> int:
    counts = range((len(prompt) - 1) // b, 0, -1)
    return next((n for n in counts if any(t[: n * b] == prompt[: n * b] for t in texts)), 0)


def reuse_by_set(prompt: Tokens, texts: list[Tokens], b: int) -> int:
    known = {tuple(text[:n]) for text in texts for n in range(b, len(text) + 1, b)}
    return sum(tuple(prompt[:n]) in known for n in range(b, len(prompt), b))


SOLUTIONS = {
    "slot_index": [slots_by_loop, slots_by_rows, slots_by_divmod],
    "append_token": [append_used_slots, append_without_writes, append_by_release],
    "reused_blocks": [reuse_by_prefixes, reuse_by_slices, reuse_by_set],
}
