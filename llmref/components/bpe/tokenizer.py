"""A tokenizer: a vocabulary learned by merging, special tokens, and the ids of both.

Leaves out: how merges are learned (see merges) and how files look.
"""

import operator
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Self

from llmref._require import require_int
from llmref.components.bpe import _files, _tokenizer_json, _vocab_files
from llmref.components.bpe._imported import JsonVocabulary, RankVocabulary
from llmref.components.bpe._merges import NoMergeError, check_merges, require_vocabulary
from llmref.components.bpe._text import split_special, utf8
from llmref.components.bpe.index import Pair
from llmref.components.bpe.merges import (
    Progress,
    learn_merges,
    merge_by_rank,
    merges_from_ranks,
)
from llmref.components.bpe.words import (
    GPT2_PATTERN,
    count_words,
    pretokenize,
)


class BPETokenizer:
    """A byte-level tokenizer: ids 0 to 255 are bytes, then merges, special tokens last.

    merges[k] = (a, b) makes token 256 + k. pattern None does not cut the text. `ids`, where given,
    are the ids of the bytes and the merges, in this order, for a vocabulary that numbers them in
    another way (GPT-2's does).
    Source: Radford et al. 2019 (GPT-2), section 2.2.
    Raises: ValueError for merges that are not well formed, a pattern that does not compile, an
    empty special token, or an id that is negative or used twice.
    """

    def __init__(
        self,
        merges: Sequence[Pair] = (),
        *,
        pattern: str | None = GPT2_PATTERN,
        special_tokens: Mapping[str, int] | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        self.merges = check_merges(merges)
        self.special_tokens = dict(special_tokens or {})
        self.pattern = pattern
        size = 256 + len(self.merges)
        self.ids = list(range(size) if ids is None else ids)
        require_vocabulary(self.ids, size, self.special_tokens, pattern)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        spelled = [bytes([byte]) for byte in range(256)]
        for a, b in self.merges:
            spelled.append(spelled[a] + spelled[b])
        self._spelled = spelled
        self._bytes = dict(zip(self.ids, spelled, strict=True))
        self._bytes |= {token: utf8(name) for name, token in self.special_tokens.items()}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the rows that an embedding needs."""
        return max(self._bytes) + 1

    def train(
        self,
        corpus: str | Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Sequence[str] = (),
        min_count: int = 2,
        method: Literal["naive", "incremental"] = "incremental",
        progress: Progress | None = None,
    ) -> Self:
        """Learn the merges of a corpus, in place of the present ones, and return self.

        vocab_size counts bytes, merges and special tokens. Special tokens in the corpus are cut
        out. If training fails, or progress raises, the tokenizer is as it was.
        Raises: ValueError if vocab_size < 256 + len(special_tokens) or a special token comes twice;
        TypeError unless the corpus is str or an iterable of str. Warns if fewer merges exist.
        """
        require_int(vocab_size=vocab_size)
        wanted = vocab_size - 256 - len(special_tokens)
        if wanted < 0:
            raise ValueError(
                f"vocab_size must hold 256 bytes and {len(special_tokens)} special tokens, "
                f"got {vocab_size}"
            )
        if isinstance(special_tokens, str) or len(set(special_tokens)) < len(special_tokens):
            raise ValueError(f"special_tokens must be distinct, got {special_tokens!r}")
        words = count_words(corpus, self.pattern, special_tokens)
        merges = learn_merges(words, wanted, min_count=min_count, method=method, progress=progress)
        if len(merges) < wanted:
            warnings.warn(
                f"only {len(merges)} of {wanted} merges: no other pair occurs {min_count} times",
                stacklevel=2,
            )
        special = {name: 256 + len(merges) + i for i, name in enumerate(special_tokens)}
        # All of it is checked in a new object, so that an error leaves this one untouched.
        trained = BPETokenizer(merges, pattern=self.pattern, special_tokens=special)
        self.__dict__.update(trained.__dict__)
        return self

    def encode(
        self, text: str, *, allowed_special: Literal["all", "none"] | set[str] = "none"
    ) -> list[int]:
        """Ids of the text; special tokens in it are ordinary text unless they are allowed.

        Raises: TypeError unless text is str; ValueError for a lone surrogate, or an allowed name
        that is not a special token.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode needs str, got {type(text).__name__}; see encode_bytes")
        utf8(text)  # an error that names the place in the text, not in a piece
        known: dict[str, list[int]] = {}  # for this call alone: most pieces come many times
        out: list[int] = []
        for part in self._parts(text, self._allowed(allowed_special)):
            if isinstance(part, int):
                out.append(part)
                continue
            for piece in self._pieces(part):
                if piece not in known:
                    known[piece] = self._piece_ids(piece)
                out += known[piece]
        return out

    def _parts(self, text: str, allowed: set[str]) -> Iterator[int | str]:
        """Ids of the allowed special tokens, and the text between them."""
        for i, part in enumerate(split_special(text, allowed)):
            yield self.special_tokens[part] if i % 2 else part

    def _pieces(self, part: str) -> list[str]:
        return pretokenize(part, self.pattern)

    def _piece_ids(self, piece: str) -> list[int]:
        return self.encode_bytes(utf8(piece))

    def _allowed(self, allowed: Literal["all", "none"] | set[str]) -> set[str]:
        if isinstance(allowed, str):
            if allowed not in ("all", "none"):
                raise ValueError(f"allowed_special: 'all', 'none' or a set, got {allowed!r}")
            return set(self.special_tokens) if allowed == "all" else set()
        if not isinstance(allowed, Collection):
            raise TypeError(f"allowed_special: 'all', 'none' or a set, got {allowed!r}")
        if unknown := set(allowed) - set(self.special_tokens):
            raise ValueError(f"allowed_special names no special token: {sorted(unknown)}")
        return set(allowed)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes, as one piece: no pattern, no special tokens.

        Raises: TypeError unless data is bytes.
        """
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"encode_bytes needs bytes, got {type(data).__name__}")
        ids = self.ids
        return [ids[token] for token in merge_by_rank(data, self._ranks)]

    def token_bytes(self, id: int) -> bytes:  # noqa: A002  (the published name)
        """What one id stands for.

        Raises: TypeError unless id is an integer; ValueError if no token has it.
        """
        number = _integer(id)
        if number not in self._bytes:
            raise ValueError(f"no token has the id {number}; vocab_size is {self.vocab_size}")
        return self._bytes[number]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids, joined.

        Raises: as token_bytes.
        """
        return b"".join(map(self.token_bytes, ids))  # eq. eq-bpe-decode

    def decode(
        self, ids: Sequence[int], *, errors: Literal["strict", "replace"] = "replace"
    ) -> str:
        """The text of the ids: bytes are joined first, then read as UTF-8.

        Invalid UTF-8 becomes U+FFFD, or raises UnicodeDecodeError (a ValueError) when strict.
        Raises: as token_bytes; ValueError for another `errors`.
        """
        if errors not in ("strict", "replace"):
            raise ValueError(f"errors must be 'strict' or 'replace', got {errors!r}")
        return self._joined([(id_, self.token_bytes(id_)) for id_ in ids], errors)

    def _joined(self, tokens: list[tuple[int, bytes]], errors: str) -> str:
        return b"".join(data for _, data in tokens).decode("utf-8", errors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON in UTF-8: the same tokenizer always gives the same file."""
        _files.write_json(path, self._content())

    def _content(self) -> dict[str, object]:
        plain = self.ids == list(range(len(self.ids)))
        return {
            "merges": [list(pair) for pair in self.merges],
            "special_tokens": self.special_tokens,
            "pattern": self.pattern,
            "ids": [] if plain else self.ids,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises: ValueError with the file's name if it is damaged, foreign or of another version.
        """
        content, claimed = _files.read_json(path)
        try:
            tokenizer = cls(
                content["merges"],
                pattern=content["pattern"],
                special_tokens=content["special_tokens"],
                ids=content["ids"] or None,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if _files.checksum(content) != claimed:
            raise ValueError(f"{path} is damaged: its content does not have the checksum it claims")
        return tokenizer

    def save_tiktoken(self, path: str | os.PathLike[str]) -> None:
        """Write the tokens as a rank file of tiktoken; pattern and special tokens are not in it.

        Raises: ValueError if tiktoken would encode differently: a token that its own bytes do not
        encode to, or ids that do not rise with the merges.
        """
        for token, spelled in zip(self.ids, self._spelled, strict=True):
            if self.encode_bytes(spelled) != [token]:
                raise ValueError(
                    f"a rank file cannot express token {token}, {spelled!r}: "
                    f"its bytes encode to {self.encode_bytes(spelled)}"
                )
        if self.ids[256:] != sorted(self.ids[256:]):
            raise ValueError("a rank file cannot express ids that do not rise with the merges")
        _files.write_tiktoken(path, self._spelled, self.ids)

    @classmethod
    def from_tiktoken(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str | None,
        special_tokens: Mapping[str, int] | None = None,
    ) -> "BPETokenizer":
        """Read a rank file of tiktoken; the ids are those of tiktoken with the same pattern.

        Where every token is the merge of two earlier ones, the result has these `merges`. Where one
        is not, as in Llama 3's file, it has none; then save_tiktoken saves it, and save does not.
        Raises: ValueError if the file is damaged, or a byte is missing.
        """
        tokens = _files.read_tiktoken(path)
        try:
            merges, ids = merges_from_ranks(tokens)
        except NoMergeError:
            return _RankTokenizer(tokens, pattern=pattern, special_tokens=special_tokens)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return cls(merges, pattern=pattern, special_tokens=special_tokens, ids=ids)

    @classmethod
    def from_vocab_and_merges(
        cls,
        vocab: str | os.PathLike[str],
        merges: str | os.PathLike[str],
        *,
        pattern: str | None,
        special_tokens: Sequence[str] = (),
    ) -> Self:
        """Read vocab.json and merges.txt, the files of GPT-2, in which stand-ins spell the bytes.

        special_tokens names the tokens that no merge makes; their ids are in vocab.json.
        Raises: ValueError if a file is damaged, a byte is missing, a merge uses or makes what it
        cannot, or special_tokens does not name just those tokens.
        """
        ids, pairs, special = _vocab_files.read_vocab_and_merges(vocab, merges, special_tokens)
        return cls(pairs, pattern=pattern, special_tokens=special, ids=ids)

    @staticmethod
    def from_tokenizer_json(path: str | os.PathLike[str]) -> "BPETokenizer":
        """Read the tokenizer.json of Hugging Face's tokenizers; its model must be BPE.

        The ids are those of its encode(text, add_special_tokens=False): post-processors are known,
        and not applied. Added tokens are found in every text, but special ones only if allowed.
        Read are, and Sequences of these: normalizer NFC, Prepend, Replace; pre_tokenizer ByteLevel,
        Digits, isolated Split; decoder ByteLevel, or ByteFallback, Fuse, Replace, Strip.
        The result has no merges, pattern and ids; it is neither trained nor saved.
        Source: tokenizers 0.23.
        Differs: a character without an id raises, where tokenizers drops it; an added token decodes
        to its own text; NFC follows Python's version of Unicode.
        Raises: ValueError with the name of what is not read, or if the file is damaged.
        """
        try:
            return _JsonTokenizer(_tokenizer_json.read_tokenizer_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _integer(number: int) -> int:
    """What counts as an index in Python: an int, or such a number of another library."""
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"an id must be an integer, got {number!r}") from None


class _RankTokenizer(RankVocabulary, BPETokenizer):
    """What from_tiktoken makes of tokens that are no merges."""


class _JsonTokenizer(JsonVocabulary, BPETokenizer):
    """What from_tokenizer_json makes."""
