"""Exercises on a paged cache: its slots, an append with copy on write, reuse of prefixes."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number
from llmref.practice.exercises._laws import LawOfForms


def _tables() -> list[tuple[Any, ...]]:
    ids = torch.tensor
    return [
        (ids([1, 2, 5]), ids([3]), 2),
        (ids([4, 1, 7]), ids([0, 1, 4, 5]), 2),
        (ids([3, 0, 6, 2]), torch.arange(12), 3),
        (ids([1, 9, 4, 8, 0]), torch.arange(15), 3),
        (ids([11, 2, 7, 5, 0, 13]), torch.arange(24).flip(0), 4),
    ]


def _run_on(function: Function, table: Tensor, positions: Tensor, b: int) -> bool:
    slots = function(table, torch.arange(len(table) * b), b).reshape(len(table), b)
    return apart(slots.diff(), torch.ones_like(slots.diff()))


def _in_order(function: Function, table: Tensor, positions: Tensor, b: int) -> bool:
    return apart(function(torch.arange(len(table)), positions, b).double(), positions.double())


def _collide(function: Function, table: Tensor, positions: Tensor, b: int) -> bool:
    slots = function(table, torch.arange(len(table) * b), b)
    return len(slots.unique()) < len(slots)


def _moved(function: Function, table: Tensor, positions: Tensor, b: int) -> bool:
    moved = function(table + 1, positions, b) - function(table, positions, b)
    return apart(moved.double(), torch.full_like(moved, b).double())


SLOT_INDEX = Exercise(
    name="slot_index",
    topic="inference/paged",
    level=1,
    task="The slot of each position (T,), if block i holds the slots from i b to i b + b - 1, and "
    "the block table (M,) names the block of the first b positions, of the next b, and so on.",
    inputs=_tables,
    definition="paged-map",
    laws=(
        Law("Within a block the slots follow each other.", "paged-map", _run_on),
        Law("If the blocks come in order, slots are positions.", "paged-map", _in_order),
        Law("Different positions have different slots.", "paged-map", _collide),
        Law("One block further is b slots further.", "paged-map", _moved),
    ),
    mistakes=(
        Mistake(
            "quotient and remainder exchanged",
            "The quotient says which block, the remainder where in it.",
            (("positions // b", "positions % b"), (" + positions % b", " + positions // b")),
        ),
        Mistake(
            "no factor b",
            "A block has b slots, so block i begins at slot i b.",
            (("] * b", "]"),),
        ),
        Mistake(
            "the table left out",
            "These are the slots of a contiguous cache, which a second sequence would overwrite.",
            (("block_table[positions // b]", "(positions // b)"),),
        ),
        Mistake(
            "the first slot of the block",
            "The remainder is missing: all tokens of a block would be one.",
            ((" + positions % b", " + 0 * positions"),),
        ),
        Mistake(
            "the number of blocks for their size",
            "The stride is the size of a block, however many a sequence has.",
            (("] * b", "] * len(block_table)"),),
        ),
    ),
    conventions=(
        Convention(
            "keys and values in one block",
            "transformers lays the values of a block behind its keys, so that keys of the next "
            "block are 2 b slots further. To match, count keys alone.",
            (("] * b", "] * 2 * b"),),
        ),
    ),
    hints=(
        "Which piece of b tokens is a position in, and where in this piece?",
        "The table is asked for the piece, not for the position.",
    ),
    branches={
        "blocks that do not ascend": lambda table, positions, b: bool((table.diff() < 0).any()),
        "positions in several blocks": lambda table, positions, b: bool(
            (positions // b).unique().numel() > 1
        ),
    },
)


def _caches() -> list[tuple[Any, ...]]:
    """A token, a pool, one sequence, and how many tables name each block."""
    return [
        # x, (blocks, b, D) by the number of their tokens, table, length, refs, free
        (number(7), _pool([2, 0, 0], 2, 1), [0], 2, [1, 0, 0], [2, 1]),
        (number(7), _pool([1, 0, 0], 2, 1), [0], 1, [2, 0, 0], [1, 2]),
        (number(7), _pool([0, 1, 0], 2, 1), [1], 1, [0, 1, 0], [0, 2]),
        (number(7), _pool([0, 2, 0], 2, 1), [], 0, [0, 3, 0], [2, 0]),
        (normal(2), _pool([3, 0, 2, 0], 3, 2), [0, 2], 5, [3, 0, 3, 0], [3, 1]),
        (normal(2), _pool([3, 0, 2, 0], 3, 2), [0, 2], 5, [3, 0, 1, 0], [1, 3]),
        (normal(2), _pool([3, 0, 3, 0], 3, 2), [2, 0], 6, [2, 0, 2, 0], [3, 1]),
        (normal(3), _pool([4, 1, 4, 0, 0], 4, 3), [2, 0, 1], 9, [2, 2, 4, 0, 0], [3, 4]),
    ]


def _pool(filled: list[int], b: int, D: int) -> Tensor:
    """Blocks with this many tokens each; the other slots are 0."""
    used = torch.arange(b) < torch.tensor(filled)[:, None]
    return (1 + normal(len(filled), b, D, seed=5).abs()) * used[..., None]


def _rows(pool: Tensor, table: Any, length: int) -> Tensor:
    blocks = [int(block) for block in table]
    return pool[blocks].flatten(0, 1)[:length] if blocks else pool[0, :0]


def _reads(
    function: Function, x: Tensor, pool: Tensor, table: Any, length: int, *counts: Any
) -> bool:
    before = torch.cat([_rows(pool, table, length), x[None]])
    new, blocks, _, _ = function(x, pool, table, length, *counts)
    return apart(_rows(new, blocks, length + 1), before)


def _others(
    function: Function, x: Tensor, pool: Tensor, table: Any, length: int, refs: Any, free: Any
) -> bool:
    new = function(x, pool, table, length, refs, free)[0]
    kept = [i for i, count in enumerate(refs) if count > (i in table)]
    return apart(new[kept], pool[kept])


def _sum(
    function: Function, x: Tensor, pool: Tensor, table: Any, length: int, refs: Any, free: Any
) -> bool:
    _, blocks, counts, _ = function(x, pool, table, length, refs, free)
    return bool(sum(map(int, counts)) - sum(refs) != len(blocks) - len(table))


def _free(function: Function, *given: Any) -> bool:
    _, _, counts, free = function(*given)
    return sorted(map(int, free)) != [i for i, count in enumerate(counts) if count == 0]


APPEND_TOKEN = Exercise(
    name="append_token",
    topic="inference/paged",
    level=2,
    task=(
        "Append the token x (D,) to a sequence of `length` tokens, whose blocks of the pool "
        "(blocks, b, D) are in the list `table`. refs[i] of the list `refs` is how many tables "
        "name block i; new blocks come from the end of the list `free`; unused slots hold 0. "
        "Return new pool, table, refs and free, and change none of those given."
    ),
    inputs=_caches,
    definition="paged-copy-on-write",
    laws=(
        LawOfForms(
            "The sequence reads its old tokens, and then the new one.",
            "paged-copy-on-write",
            _reads,
        ),
        Law("What other sequences read stays as it was.", "paged-copy-on-write", _others),
        LawOfForms(
            "The counts grow by as many as the entries of the table.",
            "paged-copy-on-write",
            _sum,
        ),
        LawOfForms("A block is free if and only if its count is 0.", "paged-copy-on-write", _free),
    ),
    mistakes=(
        Mistake(
            "no copy",
            "All sequences that share the block would read the new token.",
            (("elif refs[table[-1]] > 1:", "elif False:"),),
        ),
        Mistake(
            "copied, but the old count not lowered",
            "The table no longer names the old block, which could then never be free.",
            (("refs[old] -= 1", "refs[old] -= 0"),),
        ),
        Mistake(
            "freed while others read it",
            "The old block has lost one reader, not all of them.",
            (("refs[old] -= 1", "refs[old] = 0; free.insert(0, old)"),),
        ),
        Mistake(
            "copied without its tokens",
            "The new block replaces the old one for the earlier tokens too.",
            (("pool[new] = pool[old]", "pool[new] = 0.0"),),
        ),
        Mistake(
            "the table keeps the old block",
            "The copy is there to be written to, and the old block to be left to the others.",
            (("table[-1] = new", "table[-1] = old"),),
        ),
        Mistake(
            "copied though nobody else reads it",
            "A count of 1 is the sequence itself.",
            (("> 1:", "> 0:"),),
        ),
        Mistake(
            "a new block one token late",
            "A length that b divides has no slot left: the write would be to the first slot again.",
            (("length % b == 0", "length % b == 1"),),
        ),
        Mistake(
            "the new block not counted",
            "With a count of 0 it is free, and the next sequence would be given the same one.",
            (("refs[table[-1]] = 1", "refs[table[-1]] = 0"),),
        ),
    ),
    conventions=(
        Convention(
            "the first free block",
            "Which free block is taken changes nothing that is read. To match, take it from the "
            "end of the list.",
            (
                ("table.append(free.pop())", "table.append(free.pop(0))"),
                ("table[-1], free.pop()", "table[-1], free.pop(0)"),
            ),
        ),
    ),
    hints=(
        "There are three cases: no slot left, the last block shared, the last block its own.",
        "In the second case the block is copied first. Which counts change, and how?",
        "In all cases the last line is the same write.",
    ),
    branches={
        "an empty sequence": lambda x, pool, table, length, refs, free: not table,
        "full blocks": lambda x, pool, table, length, refs, free: (
            length > 0 and length % pool.shape[1] == 0
        ),
        "a last block that is shared": lambda x, pool, table, length, refs, free: (
            length % pool.shape[1] > 0 and refs[table[-1]] > 1
        ),
        "a last block of its own": lambda x, pool, table, length, refs, free: (
            length % pool.shape[1] > 0 and refs[table[-1]] == 1
        ),
    },
    fixed=("x", "pool"),
)


def _prompts() -> list[tuple[Any, ...]]:
    return [
        ([1, 2, 3], [[1, 2]], 2),
        ([1, 2], [[1, 2]], 2),
        ([1, 2, 5], [[9, 9, 1, 2]], 2),
        ([1, 2, 3, 9], [[1, 2, 3]], 2),
        ([2, 1, 5], [[1, 2, 5]], 2),
        ([5, 6, 3, 4, 7], [[1, 2, 3, 4], [5, 6, 7]], 2),
        ([1, 2, 9, 9, 5], [[1, 2, 3, 4]], 2),
        ([1, 2, 3, 9, 5], [[1, 2, 3, 4]], 2),
        ([8, 8, 3, 4, 1, 2, 0], [[1, 2, 3, 4], [8, 8, 7, 7]], 2),
        ([3, 1, 4, 1, 5, 9, 2], [[3, 1, 4, 1, 5, 9, 2, 6]], 3),
        ([3, 1, 4, 1, 5, 9], [[3, 1, 4, 1, 5, 9, 2, 6]], 3),
        ([1, 2, 5, 6, 0], [[1, 2, 3, 4, 7], [7, 7]], 2),
        ([1, 2, 3, 4, 5, 6, 0], [[1, 2, 3, 4], [9, 9, 3, 4, 5, 6]], 2),
        ([7, 7, 7], [], 1),
        ([7, 7, 7], [[7, 7, 7, 7]], 1),
    ]


def _moved_behind(function: Function, prompt: list[int], texts: list[list[int]], b: int) -> bool:
    """The second block of a known prompt, after another first block that is known too."""
    first, second = [-1] * b, prompt[b : 2 * b]
    return len(second) == b and int(function([*first, *second, 0], [first, prompt], b)) != 1


def _itself(function: Function, prompt: list[int], texts: list[list[int]], b: int) -> bool:
    return int(function(prompt, [prompt], b)) * b >= len(prompt)


def _longer(function: Function, prompt: list[int], texts: list[list[int]], b: int) -> bool:
    """With tokens behind it, a prompt that is known is reused in all its full blocks."""
    return int(function([*prompt, 0], [prompt], b)) != len(prompt) // b


REUSED_BLOCKS = Exercise(
    name="reused_blocks",
    topic="inference/paged",
    level=2,
    task=(
        "prompt and each of `texts` are lists of token ids. How many blocks of b tokens of the "
        "prompt need not be computed, if the caches of the texts are held in blocks of b from "
        "their start? The logits after its last token are wanted."
    ),
    inputs=_prompts,
    definition="paged-prefix-hash",
    laws=(
        LawOfForms(
            "A block that is known after another beginning only is not reused.",
            "paged-prefix-hash",
            _moved_behind,
        ),
        LawOfForms("Of a prompt, the last token is always computed.", "paged-prefix-hash", _itself),
        LawOfForms(
            "A prompt that goes on after a known text reuses all full blocks of that.",
            "paged-prefix-hash",
            _longer,
        ),
    ),
    mistakes=(
        Mistake(
            "own tokens only",
            "From the second layer on, keys and values depend on all tokens before the block.",
            (("(key, *tokens[i : i + b])", "(None, *tokens[i : i + b])"),),
        ),
        Mistake(
            "own tokens and their position",
            "The same tokens at the same place, after another text, have other keys.",
            (("(key, *tokens[i : i + b])", "(i, *tokens[i : i + b])"),),
        ),
        Mistake(
            "the block before alone",
            "A layer passes on what it read, so a key depends on all blocks before, not on one.",
            (
                (
                    "(key, *tokens[i : i + b])",
                    "(*tokens[max(0, i - b) : i], None, *tokens[i : i + b])",
                ),
            ),
        ),
        Mistake(
            "the beginning found anywhere in a text",
            "Behind other tokens the same ones have other keys, and other positions.",
            (
                (
                    "for key in keys(text)}",
                    "for start in range(len(text)) for key in keys(text[start:])}",
                ),
            ),
        ),
        Mistake(
            "a block that agrees in part",
            "A block is reused whole, so all its b tokens must be the same.",
            (
                (
                    "    for key in keys(prompt[:-1]):  # the last token must run: its logits are "
                    "wanted",
                    "    for text in texts:\n"
                    "        same = 0\n"
                    "        while same < min(len(prompt) - 1, len(text)) and "
                    "prompt[same] == text[same]:\n"
                    "            same += 1\n"
                    "        count = max(count, -(-same // b))\n"
                    "    for key in []:",
                ),
            ),
        ),
        Mistake(
            "the whole prompt",
            "A cache holds no logits: the last token must run.",
            (("prompt[:-1]", "prompt"),),
        ),
        Mistake(
            "partial blocks",
            "A block that is not full will still be written to.",
            (("len(tokens) - b + 1", "len(tokens)"),),
        ),
        Mistake(
            "a key that forgets the order",
            "The same tokens in another order are another text.",
            (("(key, *tokens[i : i + b])", "(key, *sorted(tokens[i : i + b]))"),),
        ),
        Mistake(
            "the last full block left out",
            "A text of b tokens has one full block.",
            (("len(tokens) - b + 1", "len(tokens) - b"),),
        ),
    ),
    conventions=(
        Convention(
            "tokens for blocks",
            "Servers report cached tokens. To match, count blocks.",
            (("count += 1", "count += b"),),
        ),
    ),
    hints=(
        "What must be equal, besides the tokens of a block, for its keys to be equal?",
        "Give each full block a key that contains the key of the block before it.",
        "Which token of the prompt may not come from the cache?",
    ),
    branches={
        "nothing held": lambda prompt, texts, b: not texts,
        "a prompt that is held whole": lambda prompt, texts, b: prompt in texts,
        "full blocks only": lambda prompt, texts, b: len(prompt) % b == 0,
        "a later block that is held elsewhere": lambda prompt, texts, b: any(
            prompt[b : 2 * b] == text[b : 2 * b] and prompt[:b] != text[:b] for text in texts
        ),
    },
)

EXERCISES = (SLOT_INDEX, APPEND_TOKEN, REUSED_BLOCKS)
