"""Patterns, special tokens and bytes: what cutting text and encoding it both need."""

from collections.abc import Iterable
from itertools import pairwise

import regex  # the standard library's re has neither \p{L} nor Unicode's own \s

# GPT-2's files spell each byte by a printable character: itself, or one from U+0100 on.
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
STAND_INS = [chr(b if b in _PRINTABLE else 256 + _OTHERS.index(b)) for b in range(256)]
BYTE_OF = {character: byte for byte, character in enumerate(STAND_INS)}


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled (`regex` keeps the most recent ones).

    Raises: TypeError unless it is str; ValueError if it is not a regular expression.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be str, got {type(pattern).__name__}")
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"not a regular expression: {pattern!r} ({error})") from None


def isolate(text: str, pattern: regex.Pattern[str]) -> list[str]:
    """Matches and what lies between them, in order: they always concatenate to the text.

    isolate("ab12c", compile_pattern("[0-9]")) = ["ab", "1", "2", "c"].
    """
    cuts = [0]
    for match in pattern.finditer(text):
        cuts += match.span()
    cuts.append(len(text))
    return [text[start:end] for start, end in pairwise(cuts) if start < end]


def stand_ins(data: bytes) -> str:
    """One printable character a byte; those of b" a" are "Ġa"."""
    return "".join(map(STAND_INS.__getitem__, data))


def spelled_bytes(token: str) -> bytes:
    """The bytes that stand-ins spell; a token with any other character is its own text."""
    if all(character in BYTE_OF for character in token):
        return bytes(map(BYTE_OF.__getitem__, token))
    return utf8(token)


def split_special(text: str, special: Iterable[str]) -> list[str]:
    """Ordinary text at even places, special tokens at odd places.

    They are found from left to right; of those that begin at one place the longest wins.
    split_special("abcd", ["ab", "bcd", "abc"]) = ["", "abc", "d"].
    """
    names = sorted(special, key=lambda name: (-len(name), name))
    if not names:
        return [text]
    parts: list[str] = regex.split("(" + "|".join(map(regex.escape, names)) + ")", text)
    return parts


def utf8(text: str) -> bytes:
    """The bytes of the text.

    Raises: ValueError for a lone surrogate: half of a pair is not a character and has no bytes.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got the lone surrogate U+{ord(text[error.start]):04X} "
            f"at character {error.start}; for arbitrary bytes use encode_bytes"
        ) from None
