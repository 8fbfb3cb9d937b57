"""How is the tokenizer.json of tokenizers read, so that nothing in it is passed over in silence?

Leaves out: post-processors, which add special tokens around a text: they are known by type, and not
applied. Models other than BPE, truncation and padding are refused.
Source: tokenizers 0.23.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmref.components.bpe._fields import Fields, require_fields, require_object, require_value
from llmref.components.bpe._files import AnyPath
from llmref.components.bpe._pipeline import (
    Decoder,
    Normaliser,
    Splitter,
    parts_of,
    read_decoder,
    read_normaliser,
    read_splitter,
)
from llmref.components.bpe._table import MergeTable
from llmref.components.bpe.index import Pair

NOTHING = type(None)
WHOLE: Fields = {
    "version": str,
    "truncation": (NOTHING, dict),
    "padding": (NOTHING, dict),
    "added_tokens": list,
    "normalizer": (NOTHING, dict),
    "pre_tokenizer": (NOTHING, dict),
    "post_processor": (NOTHING, dict),
    "decoder": (NOTHING, dict),
    "model": dict,
}
MODEL: Fields = {
    "type": str,
    "dropout": (NOTHING, float, int),
    "unk_token": (NOTHING, str),
    "continuing_subword_prefix": (NOTHING, str),
    "end_of_word_suffix": (NOTHING, str),
    "fuse_unk": bool,
    "byte_fallback": bool,
    "ignore_merges": bool,
    "vocab": dict,
    "merges": list,
}
# Files from before an option was introduced lack it.
MODEL_DEFAULTS: dict[str, Any] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "fuse_unk": False,
}
MODEL_DEFAULTS |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}
MODEL_DEFAULTS |= {"byte_fallback": False, "ignore_merges": False}
ADDED: Fields = {
    "id": int,
    "content": str,
    "single_word": bool,
    "lstrip": bool,
    "rstrip": bool,
    "normalized": bool,
    "special": bool,
}
# They change the sequence by special tokens alone, or offsets.
POST: dict[str, Fields] = {
    "ByteLevel": {"add_prefix_space": bool, "trim_offsets": bool, "use_regex": bool},
    "TemplateProcessing": {"single": list, "pair": list, "special_tokens": dict},
    "Sequence": {"processors": list},
}


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for in the text, before the model; after normalisation if asked."""

    name: str
    id: int
    special: bool
    normalised: bool


@dataclass(frozen=True)
class TokenizerFile:
    """What a tokenizer.json says."""

    table: MergeTable
    added: list[AddedToken]
    normalise: list[Normaliser]
    split: list[Splitter]
    decode: list[tuple[str, Decoder]] | None
    byte_level: bool


def read_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a repeated key would hide the first one."""
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} is repeated")
    return out


def load_json(path: AnyPath) -> Any:
    """The content of a file of JSON.

    Raises: ValueError if it is no JSON in UTF-8, or repeats a key.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"), object_pairs_hook=read_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON in UTF-8 ({error})") from None


def read_tokenizer_json(path: AnyPath) -> TokenizerFile:
    """All parts of the file.

    Raises: ValueError with the name of what is not read.
    """
    given = require_fields(load_json(path), "the file", WHOLE)
    require_value(given["version"], ("1.0",), "version")
    for name in ("truncation", "padding"):
        require_value(given[name], (None,), name)
    list(parts_of(given["post_processor"], "post_processor", POST))
    split, byte_level = read_splitter(given["pre_tokenizer"])
    table = read_model(given["model"])
    return TokenizerFile(
        table=table,
        added=read_added(given["added_tokens"], table),
        normalise=read_normaliser(given["normalizer"]),
        split=split,
        decode=read_decoder(given["decoder"]),
        byte_level=byte_level,
    )


def read_model(given: Any) -> MergeTable:
    """The vocabulary and the merges.

    Raises: ValueError for a model that is not BPE or has options that are not read; for an id that
    is no integer >= 0 or is used twice; for merges of what is no token.
    """
    model = require_fields(given, "model", MODEL, MODEL_DEFAULTS)
    require_value(model["type"], ("BPE",), "model: type")
    require_value(model["dropout"], (None, 0, 0.0), "model: dropout")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        require_value(model[name], (None, ""), f"model: {name}")
    vocabulary = read_vocabulary(model["vocab"], "model: vocab")
    unknown = model["unk_token"]
    if unknown is not None and unknown not in vocabulary:
        raise ValueError(f"model: unk_token {unknown!r} is not in the vocabulary")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    if model["byte_fallback"] and (lack := [name for name in bytes_ if name not in vocabulary]):
        raise ValueError(f"model: byte_fallback needs 256 tokens, {len(lack)} lack, as {lack[0]!r}")
    ranks, made = read_merges(model["merges"], vocabulary)
    return MergeTable(
        vocabulary=vocabulary,
        ranks=ranks,
        made=made,
        whole=model["ignore_merges"],
        byte_ids=[vocabulary[name] for name in bytes_] if model["byte_fallback"] else None,
        unknown=None if unknown is None else vocabulary[unknown],
        fuse_unknown=model["fuse_unk"],
    )


def read_vocabulary(given: Any, where: str) -> dict[str, int]:
    """Tokens and their ids.

    Raises: ValueError for an id that is no integer >= 0, or is used twice.
    """
    used: set[int] = set()
    for token, number in require_object(given, where).items():
        if type(number) is not int or number < 0 or number in used:
            raise ValueError(
                f"{where}: ids are distinct integers >= 0, got {number!r} for {token!r}"
            )
        used.add(number)
    return dict(given)


def read_merges(
    given: Sequence[Any], vocabulary: dict[str, int]
) -> tuple[dict[Pair, int], list[int]]:
    """The rank of each pair of ids, and the id that each rank makes.

    Raises: ValueError for a merge that is not two tokens, makes none, or is repeated.
    """
    ranks: dict[Pair, int] = {}
    made: list[int] = []
    for rank, merge in enumerate(given):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or {*map(type, parts)} != {str}:
            raise ValueError(f"merge {rank} must be two tokens, got {merge!r}")
        left, right = parts
        for token in (left, right, left + right):
            if token not in vocabulary:
                raise ValueError(f"merge {rank} needs the token {token!r}, got no such token")
        pair = vocabulary[left], vocabulary[right]
        if pair in ranks:
            raise ValueError(f"merge {rank} repeats merge {ranks[pair]}: {merge!r}")
        ranks[pair] = rank
        made.append(vocabulary[left + right])
    return ranks, made


def read_added(given: Sequence[Any], table: MergeTable) -> list[AddedToken]:
    """The added tokens.

    Raises: ValueError for an empty or repeated one, one that takes in spaces or wants whole words,
    or an id that is not the one that tokenizers gives: it numbers tokens anew that the model lacks.
    """
    added: dict[str, AddedToken] = {}
    for place, one in enumerate(given):
        token = require_fields(one, f"added_tokens[{place}]", ADDED)
        name = token["content"]
        for option in ("single_word", "lstrip", "rstrip"):
            require_value(token[option], (False,), f"added token {name!r}: {option}")
        if not name or name in added:
            raise ValueError(f"added tokens are distinct and not empty, got {name!r}")
        highest = max((other.id for other in added.values()), default=-1)
        following = max(highest + 1, len(table.vocabulary))
        wanted = table.vocabulary.get(name, following)
        if token["id"] != wanted:
            raise ValueError(
                f"added token {name!r} has the id {token['id']} in the file, and tokenizers gives "
                f"it {wanted}"
            )
        added[name] = AddedToken(name, wanted, token["special"], token["normalized"])
    return list(added.values())
