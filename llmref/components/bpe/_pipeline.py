"""What do the normaliser, pre-tokeniser and decoder of a tokenizer.json do to a text?

Each is read into functions. Leaves out: all types but those listed here, which are refused.
Source: tokenizers 0.23.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import regex

from llmref.components.bpe._fields import Fields, require_kind, require_value
from llmref.components.bpe._patterns import portable_pattern
from llmref.components.bpe._text import compile_pattern, isolate, stand_ins, utf8
from llmref.components.bpe.words import GPT2_PATTERN

Normaliser = Callable[[str], str]
Splitter = Callable[[str], list[str]]
Decoder = Callable[[list[str], str], list[str]]  # tokens, and 'strict' or 'replace' for bad UTF-8

BYTE_LEVEL: Fields = {"add_prefix_space": bool, "trim_offsets": bool, "use_regex": bool}
REPLACE: Fields = {"pattern": dict, "content": str}
BYTE_TOKEN = regex.compile(r"<0x([0-9A-Fa-f]{2})>")


def pattern_of(given: dict[str, Any], where: str) -> regex.Pattern[str]:
    """{"String": text} or {"Regex": pattern}, compiled."""
    kind, text = next(iter(given.items())) if len(given) == 1 else ("", None)
    if kind not in ("String", "Regex") or not isinstance(text, str) or not text:
        raise ValueError(f"{where}: pattern must be one String or Regex, not empty, got {given!r}")
    return regex.compile(regex.escape(text)) if kind == "String" else portable_pattern(text, where)


def parts_of(
    given: Any, name: str, kinds: Mapping[str, Fields]
) -> Iterable[tuple[str, dict[str, Any]]]:
    """The types and fields of a component, its Sequences laid flat."""
    if given is None:
        return
    kind, fields = require_kind(given, name, kinds)
    if kind == "Sequence":
        for part in next(iter(fields.values())):
            yield from parts_of(part, name, kinds)
    else:
        yield kind, fields


def substituted(fields: dict[str, Any], where: str) -> Normaliser:
    """Replace: every match becomes the content."""
    pattern, content = pattern_of(fields["pattern"], where), fields["content"]
    return lambda text: pattern.sub(lambda _: content, text)


def read_normaliser(given: Any) -> list[Normaliser]:
    """NFC, Prepend and Replace, in their order.

    Raises: ValueError for any other type, or a field that is not read.
    """
    kinds: dict[str, Fields] = {
        "NFC": {},
        "Prepend": {"prepend": str},
        "Replace": REPLACE,
        "Sequence": {"normalizers": list},
    }
    steps: list[Normaliser] = []
    for kind, fields in parts_of(given, "normalizer", kinds):
        if kind == "NFC":
            steps.append(lambda text: unicodedata.normalize("NFC", text))
        elif kind == "Replace":
            steps.append(substituted(fields, "normalizer Replace"))
        else:
            steps.append(prepended(fields["prepend"]))
    return steps


def prepended(start: str) -> Normaliser:
    """Prepend: an empty text stays empty."""
    return lambda text: text and start + text


def read_splitter(given: Any) -> tuple[list[Splitter], bool]:
    """Split, Digits and ByteLevel, in their order, and whether bytes become stand-ins.

    Raises: ValueError for any other type, a behaviour of Split but Isolated, or bytes twice.
    """
    kinds: dict[str, Fields] = {
        "ByteLevel": BYTE_LEVEL,
        "Digits": {"individual_digits": bool},
        "Split": {"pattern": dict, "behavior": str, "invert": bool},
        "Sequence": {"pretokenizers": list},
    }
    steps: list[Splitter] = []
    byte_level = False
    for kind, fields in parts_of(given, "pre_tokenizer", kinds):
        if kind == "ByteLevel":
            if byte_level:
                raise ValueError("pre_tokenizer: a second ByteLevel is not read")
            byte_level = True
            steps.append(byte_pieces(fields["add_prefix_space"], fields["use_regex"]))
            continue
        if kind == "Digits":
            pattern = regex.compile(r"\p{N}" if fields["individual_digits"] else r"\p{N}+")
        else:
            require_value(fields["behavior"], ("Isolated",), "pre_tokenizer Split: behavior")
            require_value(fields["invert"], (False,), "pre_tokenizer Split: invert")
            pattern = pattern_of(fields["pattern"], "pre_tokenizer Split")
        steps.append(isolated(pattern))
    return steps, byte_level


def isolated(pattern: regex.Pattern[str]) -> Splitter:
    """Split: the matches, and what is between them."""
    return lambda text: isolate(text, pattern)


def byte_pieces(prefix: bool, cut: bool) -> Splitter:
    """Perhaps a space before the text, GPT-2's cuts, then a stand-in for each byte."""
    pattern = compile_pattern(GPT2_PATTERN)

    def split(text: str) -> list[str]:
        if prefix and not text.startswith(" "):
            text = " " + text
        pieces = isolate(text, pattern) if cut else [text]
        return [stand_ins(utf8(piece)) for piece in pieces]

    return split


def read_decoder(given: Any) -> list[tuple[str, Decoder]] | None:
    """Replace, ByteFallback, Fuse and Strip, in their order; None for ByteLevel: join the bytes.

    Raises: ValueError for no decoder, any other type, or ByteLevel together with others.
    """
    kinds: dict[str, Fields] = {
        "ByteLevel": BYTE_LEVEL,
        "Replace": REPLACE,
        "ByteFallback": {},
        "Fuse": {},
        "Strip": {"content": str, "start": int, "stop": int},
        "Sequence": {"decoders": list},
    }
    found = list(parts_of(given, "decoder", kinds))
    names = [kind for kind, _ in found]
    if names == ["ByteLevel"]:
        return None
    if not names or "ByteLevel" in names:
        raise ValueError(
            f"decoder must be ByteLevel alone, or some of {sorted(set(kinds) - {'ByteLevel'})}; "
            f"others are not read, got {names}"
        )
    return [(kind, read_step(kind, fields)) for kind, fields in found]


def read_step(kind: str, fields: dict[str, Any]) -> Decoder:
    """One step of a decoder other than ByteLevel."""
    if kind == "Replace":
        replace = substituted(fields, "decoder Replace")
        return lambda tokens, errors: [replace(token) for token in tokens]
    if kind == "Strip":
        content, start = fields["content"], fields["start"]
        require_value(fields["stop"], (0,), "decoder Strip: stop")
        if len(content) != 1 or start < 0:
            raise ValueError(f"decoder Strip takes one character and start >= 0, got {fields}")
        leading = regex.compile(f"^(?:{regex.escape(content)}){{0,{start}}}")
        return lambda tokens, errors: [leading.sub("", token) for token in tokens]
    if kind == "ByteFallback":
        return joined_bytes
    return lambda tokens, errors: ["".join(tokens)]


def joined_bytes(tokens: list[str], errors: str) -> list[str]:
    """Runs of <0x..> as UTF-8; if a run is invalid, U+FFFD for each of its bytes.

    joined_bytes(["a", "<0xC3>", "<0xA9>"], "strict") = ["a", "é"].
    Raises: UnicodeDecodeError for an invalid run if errors is 'strict'.
    """
    out: list[str] = []
    run = b""
    for token in [*tokens, ""]:  # the last one ends a run
        if byte := BYTE_TOKEN.fullmatch(token):
            run += bytes([int(byte[1], 16)])
            continue
        if run:
            try:
                out.append(run.decode("utf-8"))
            except UnicodeDecodeError:
                if errors == "strict":
                    raise
                out.append("\ufffd" * len(run))
            run = b""
        out.append(token)
    return out[:-1]
