"""How are vocab.json and merges.txt, the files of GPT-2, read?

Leaves out: vocabularies in which two merges make one token, or a merge uses a token that is made
later; their tokenizer.json is read.
"""

from collections.abc import Sequence
from pathlib import Path

from llmref.components.bpe._files import AnyPath
from llmref.components.bpe._text import STAND_INS
from llmref.components.bpe._tokenizer_json import load_json, read_vocabulary
from llmref.components.bpe.index import Pair


def read_vocab_and_merges(
    vocab: AnyPath, merges: AnyPath, special: Sequence[str]
) -> tuple[list[int], list[Pair], dict[str, int]]:
    """The ids of bytes and merges, the merges by place, and the special tokens with their ids.

    Raises: ValueError with the file, and the line or the token that is wrong; if the special tokens
    are not just those that no merge makes.
    """
    try:
        numbers = read_vocabulary(load_json(vocab), "the vocabulary")
    except ValueError as error:
        raise ValueError(f"{vocab}: {error}") from None
    if missing := [byte for byte in STAND_INS if byte not in numbers]:
        raise ValueError(
            f"{vocab}: all 256 bytes must be tokens, {len(missing)} lack, first {missing[0]!r}"
        )
    place = {byte: i for i, byte in enumerate(STAND_INS)}
    pairs: list[Pair] = []
    for line, left, right in read_merge_lines(merges):
        token = left + right
        if left not in place or right not in place:
            unmade = right if left in place else left
            raise ValueError(f"{merges}, line {line}: no merge before it makes {unmade!r}")
        if token not in numbers or token in place:
            why = "is not in the vocabulary" if token not in numbers else "was made before"
            raise ValueError(f"{merges}, line {line}: {token!r} {why}")
        place[token] = len(place)
        pairs.append((place[left], place[right]))
    others = {token: number for token, number in numbers.items() if token not in place}
    if set(special) != set(others):
        raise ValueError(
            f"{vocab}: special_tokens must name the tokens that no merge makes, "
            f"{sorted(others)[:10]}, got {special!r}"
        )
    return [numbers[token] for token in place], pairs, others


def read_merge_lines(path: AnyPath) -> list[tuple[int, str, str]]:
    """Line number and the two tokens of each merge; the first line may name the version.

    Raises: ValueError for a file that is not UTF-8, or a line that is not two tokens.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error})") from None
    found: list[tuple[int, str, str]] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"{path}, line {number}: a merge is two tokens, got {line[:60]!r}")
        left, right = parts
        found.append((number, left, right))
    return found
