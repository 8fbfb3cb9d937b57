"""How does byte-pair encoding turn any text into ids from a learned vocabulary, and back?

tokenizer: the whole. merges: learning and applying them, with the counts of index. words:
cutting text. Files of others are read by the parts with an underscore. Leaves out: offsets of
tokens in the text, dropout of merges, post-processors, unigram models.
"""

from llmref.components.bpe.index import (
    PairIndex,
)
from llmref.components.bpe.merges import (
    RecountedWords,
    apply_merges,
    count_pairs,
    learn_merges,
    merge_by_rank,
    merge_pair,
    merges_from_ranks,
    pairs_from_ranks,
)
from llmref.components.bpe.tokenizer import (
    BPETokenizer,
)
from llmref.components.bpe.words import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    count_words,
    pretokenize,
)

__all__ = [
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "BPETokenizer",
    "PairIndex",
    "RecountedWords",
    "apply_merges",
    "count_pairs",
    "count_words",
    "learn_merges",
    "merge_by_rank",
    "merge_pair",
    "merges_from_ranks",
    "pairs_from_ranks",
    "pretokenize",
]
