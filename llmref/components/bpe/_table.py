"""How does a published vocabulary encode one piece, with its own ids and its own pairs?

Leaves out: cutting text into pieces, and which characters spell a byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmref.components.bpe._text import utf8
from llmref.components.bpe.index import Pair
from llmref.components.bpe.merges import merge_by_rank


@dataclass(frozen=True)
class MergeTable:
    """Tokens as strings, and the pairs that merge: ranks[pair] = k makes the id made[k].

    A piece that is a token is this token if `whole` (ignore_merges of tokenizers, and tiktoken's
    rule). A character that is no token is spelled by the tokens of its bytes, or is `unknown`.
    """

    vocabulary: Mapping[str, int]
    ranks: Mapping[Pair, int]
    made: Sequence[int]
    whole: bool
    byte_ids: Sequence[int] | None = None  # of <0x00> to <0xFF>
    unknown: int | None = None
    fuse_unknown: bool = False

    def encode(self, piece: str) -> list[int]:
        """The ids of one piece.

        Raises: ValueError for a character that has no id.
        """
        if self.whole and piece in self.vocabulary:
            return [self.vocabulary[piece]]
        return merge_by_rank(self._symbols(piece), self.ranks, self.made)

    def _symbols(self, piece: str) -> list[int]:
        symbols: list[int] = []
        after_unknown = False
        for character in piece:
            token = self.vocabulary.get(character)
            if token is not None:
                symbols.append(token)
            elif self.byte_ids:
                symbols += map(self.byte_ids.__getitem__, utf8(character))
            elif self.unknown is None:
                raise ValueError(
                    f"the vocabulary has no token for {character!r}, no unk_token and no "
                    "byte_fallback: this text has no ids"
                )
            elif not (self.fuse_unknown and after_unknown):
                symbols.append(self.unknown)
            after_unknown = token is None and not self.byte_ids
        return symbols
