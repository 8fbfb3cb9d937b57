"""How is a vocabulary written and read, so that a damaged file is refused and nothing is lost?

Two forms: our own JSON, which holds all of a tokenizer, and the list of ranks that tiktoken reads,
which holds the tokens alone. Leaves out: the files of others (see _vocab_files, _tokenizer_json).
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMAT, VERSION = "llmref-bpe", 1
FIELDS = {"merges": list, "special_tokens": dict, "pattern": (str, type(None)), "ids": list}
AnyPath = str | os.PathLike[str]


def write_atomically(path: AnyPath, data: bytes) -> None:
    """The whole file or nothing: an interrupted write leaves the old file as it was."""
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, target.stat().st_mode & 0o777 if target.exists() else 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as JSON with sorted keys and no spaces."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_json(path: AnyPath, content: Mapping[str, Any]) -> None:
    """Write the fields of a tokenizer, with format, version and checksum."""
    whole = {"format": FORMAT, "version": VERSION, "sha256": checksum(content), **content}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    write_atomically(path, (text + "\n").encode("utf-8"))


def read_json(path: AnyPath) -> tuple[dict[str, Any], str]:
    """The fields that write_json wrote, and the checksum that the file claims.

    Raises: ValueError if the file is not JSON, of another format or version, or lacks a field.
    """
    try:
        whole = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a tokenizer: no JSON in UTF-8 ({error})") from None
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        seen = whole.get("format") if isinstance(whole, dict) else type(whole).__name__
        raise ValueError(f"{path} is not a tokenizer: format must be {FORMAT!r}, got {seen!r}")
    if whole.get("version") != VERSION:
        raise ValueError(f"{path}: this reads version {VERSION}, got {whole.get('version')!r}")
    for name, kind in (*FIELDS.items(), ("sha256", str)):
        if name not in whole or not isinstance(whole[name], kind):  # type: ignore[arg-type]
            seen = type(whole[name]).__name__ if name in whole else "nothing"
            raise ValueError(f"{path}: field {name!r} is missing or of the wrong type, got {seen}")
    return {name: whole[name] for name in FIELDS}, whole["sha256"]


def write_tiktoken(path: AnyPath, spelled: Sequence[bytes], ids: Sequence[int]) -> None:
    """One line a token: its bytes in base 64, a space, its id."""
    order = sorted(zip(ids, spelled, strict=True))
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in order]
    write_atomically(path, b"".join(lines))


def read_tiktoken(path: AnyPath) -> dict[bytes, int]:
    """The tokens of a rank file and their ids.

    Source: tiktoken 0.14, load_tiktoken_bpe, whose base-64 decoder skips damaged characters.
    Raises: ValueError with the line that is not one token and one rank, or that repeats one.
    """
    tokens: dict[bytes, int] = {}
    ranks: set[int] = set()
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            spelled, digits = line.split()
            token = base64.b64decode(spelled, validate=True)
            rank = int(digits) if digits.isdigit() else -1
        except ValueError:  # of split, of base 64, of int
            token, rank = b"", -1
        if not token or rank < 0:
            raise ValueError(f"{path}, line {number}: no base-64 token and rank: {line[:60]!r}")
        if token in tokens or rank in ranks:
            raise ValueError(f"{path}, line {number}: repeats a token or a rank: {line[:60]!r}")
        tokens[token] = rank
        ranks.add(rank)
    return tokens
