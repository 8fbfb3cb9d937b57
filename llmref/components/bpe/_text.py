"""Patterns, special tokens and bytes: what cutting text and encoding it both need."""

from collections.abc import Iterable

import regex  # the standard library's re has neither \p{L} nor Unicode's own \s


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled (`regex` keeps the most recent ones).

    Raises: ValueError if it is not a regular expression.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"not a regular expression: {pattern!r} ({error})") from None


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
