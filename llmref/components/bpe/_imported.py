"""What is different for a vocabulary that no list of merges of bytes expresses?

Two kinds: a rank file of tiktoken with tokens that are not the merge of two earlier ones, and a
tokenizer.json. Each is mixed into BPETokenizer. Leaves out: training, and writing the latter.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from llmref.components.bpe import _files
from llmref.components.bpe._merges import require_vocabulary
from llmref.components.bpe._pipeline import BYTE_TOKEN
from llmref.components.bpe._table import MergeTable
from llmref.components.bpe._text import spelled_bytes, split_special, stand_ins, utf8
from llmref.components.bpe._tokenizer_json import TokenizerFile
from llmref.components.bpe.merges import pairs_from_ranks


class RankVocabulary:
    """A rank file of tiktoken: a piece that is a token, or else merging by the rank of the bytes.

    It has no `merges`, since no list of them gives these ids.
    """

    def __init__(
        self,
        tokens: Mapping[bytes, int],
        *,
        pattern: str | None,
        special_tokens: Mapping[str, int] | None,
    ) -> None:
        self.pattern = pattern
        self.special_tokens = dict(special_tokens or {})
        self.ids = list(tokens.values())
        self._spelled = list(tokens)
        require_vocabulary(self.ids, len(tokens), self.special_tokens, pattern)
        # One character a byte, so that the table can be asked for strings.
        self._table = MergeTable(
            {token.decode("latin-1"): rank for token, rank in tokens.items()},
            pairs_from_ranks(tokens),
            range(max(self.ids) + 1),
            whole=True,
        )
        self._bytes = dict(zip(self.ids, self._spelled, strict=True))
        self._bytes |= {token: utf8(name) for name, token in self.special_tokens.items()}

    def encode_bytes(self, data: bytes) -> list[int]:
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"encode_bytes needs bytes, got {type(data).__name__}")
        return self._table.encode(data.decode("latin-1"))

    def save_tiktoken(self, path: str | os.PathLike[str]) -> None:
        _files.write_tiktoken(path, self._spelled, self.ids)

    def save(self, path: str | os.PathLike[str]) -> NoReturn:
        raise ValueError(
            "save cannot express tokens that are not the merge of two earlier ones; "
            "save_tiktoken can"
        )

    def train(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError("a vocabulary from a file is not trained: train a new BPETokenizer")


class JsonVocabulary:
    """A tokenizer.json: added tokens, normalisation, cuts, merges and decoding as it says.

    added_tokens are those that are no special tokens: they are found in every text. It has no
    `merges`, `pattern` or `ids`: the file may have several of each kind, or none.
    """

    def __init__(self, file: TokenizerFile) -> None:
        self._file = file
        self.special_tokens = {token.name: token.id for token in file.added if token.special}
        self.added_tokens = {token.name: token.id for token in file.added if not token.special}
        self._raw = {token.name: token.id for token in file.added if not token.normalised}
        self._normalised: dict[str, int] = {}
        for token in file.added:
            if token.normalised:
                text = self._normalise(token.name)
                if not text or text in self._normalised:
                    raise ValueError(
                        f"added tokens are distinct and not empty after normalisation, "
                        f"got {text!r} of {token.name!r}"
                    )
                self._normalised[text] = token.id
        self._names = {number: token for token, number in file.table.vocabulary.items()}
        for token in file.added:
            if self._names.get(token.id, token.name) != token.name:
                raise ValueError(f"added token {token.name!r} has an id in use, got {token.id}")
            self._names[token.id] = token.name
        self._bytes = {number: self._spell(token) for number, token in self._names.items()}
        for token in file.added if file.decode is None else []:
            known = token.name in file.table.vocabulary
            if known and self._bytes[token.id] != utf8(token.name):
                raise ValueError(
                    f"added token {token.name!r} is the model's token of the bytes "
                    f"{self._bytes[token.id]!r}: it would not decode to its text"
                )
            # Differs: tokenizers reads the letters of an added token as stand-ins too.
            self._bytes[token.id] = utf8(token.name)

    def _spell(self, token: str) -> bytes:
        if self._file.decode is None:
            return spelled_bytes(token)
        for kind, step in self._file.decode:
            if kind == "ByteFallback" and (byte := BYTE_TOKEN.fullmatch(token)):
                return bytes([int(byte[1], 16)])
            if kind == "Replace":
                (token,) = step([token], "strict")
        return utf8(token)

    def _normalise(self, text: str) -> str:
        for step in self._file.normalise:
            text = step(text)
        return text

    def _parts(self, text: str, allowed: set[str]) -> Iterator[int | str]:
        """Ids of added tokens, and the normalised text between them."""
        hidden = {self.special_tokens[name] for name in set(self.special_tokens) - allowed}
        for part in cut_out(text, self._raw, hidden):
            if isinstance(part, int):
                yield part
            else:
                yield from cut_out(self._normalise(part), self._normalised, hidden)

    def _pieces(self, part: str) -> list[str]:
        pieces = [part]
        for step in self._file.split:
            pieces = [cut for piece in pieces for cut in step(piece)]
        return pieces

    def _piece_ids(self, piece: str) -> list[int]:
        return self._file.table.encode(piece)

    def encode_bytes(self, data: bytes) -> list[int]:
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"encode_bytes needs bytes, got {type(data).__name__}")
        if not self._file.byte_level:
            raise ValueError("encode_bytes needs a byte-level vocabulary, this one has characters")
        return self._file.table.encode(stand_ins(data))

    def _joined(self, tokens: list[tuple[int, bytes]], errors: str) -> str:
        if self._file.decode is None:
            return b"".join(data for _, data in tokens).decode("utf-8", errors)
        names = [self._names[number] for number, _ in tokens]
        for _, step in self._file.decode:
            names = step(names, errors)
        return "".join(names)

    def save(self, path: str | os.PathLike[str]) -> NoReturn:
        raise ValueError("save cannot express a tokenizer.json: keep the file that was read")

    def save_tiktoken(self, path: str | os.PathLike[str]) -> NoReturn:
        raise ValueError("a rank file cannot express a tokenizer.json: keep the file that was read")

    def train(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError("a vocabulary from a file is not trained: train a new BPETokenizer")


def cut_out(text: str, tokens: Mapping[str, int], hidden: set[int]) -> Iterator[int | str]:
    """Ids of the tokens in the text, and what is between; a hidden token stays text as a whole.

    cut_out("a<b>c", {"<b>": 7}, set()) = "a", 7, "c".
    """
    plain = ""
    for i, part in enumerate(split_special(text, tokens)):
        if i % 2 and tokens[part] not in hidden:
            if plain:
                yield plain
            plain = ""
            yield tokens[part]
        else:
            plain += part
    if plain:
        yield plain
