"""vocab.json and merges.txt, the files of GPT-2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmref.components import bpe
from llmref.components.bpe import BPETokenizer
from llmref.components.bpe._text import STAND_INS, spelled_bytes, stand_ins

MERGES = "#version: 0.2\nĠ a\nb c\nĠa bc\n"
TOKENS = [*reversed(STAND_INS), "bc", "Ġa", "Ġabc", "<|end|>"]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., BPETokenizer]:
    def make(
        merges: str | bytes = MERGES,
        tokens: Any = TOKENS,
        special: Any = ("<|end|>",),
        pattern: str | None = bpe.GPT2_PATTERN,
    ) -> BPETokenizer:
        vocab = tmp_path / "vocab.json"
        if not isinstance(tokens, str):
            tokens = json.dumps({token: i for i, token in enumerate(tokens)})
        vocab.write_text(tokens, encoding="utf-8")
        data = merges if isinstance(merges, bytes) else merges.encode()
        (tmp_path / "merges.txt").write_bytes(data)
        return BPETokenizer.from_vocab_and_merges(
            vocab, tmp_path / "merges.txt", pattern=pattern, special_tokens=special
        )

    return make


def test_stand_ins_are_those_of_gpt2() -> None:
    """Printable bytes stand for themselves; the others follow from U+0100 on: space is Ġ."""
    assert stand_ins(b"a b\n") == "aĠbĊ"
    assert stand_ins(bytes([0, 127, 160, 173, 174, 255])) == "ĀġłŃ®ÿ"
    assert len(set(STAND_INS)) == 256
    assert spelled_bytes("aĠbĊÃ©") == b"a b\n\xc3\xa9"
    assert spelled_bytes("中") == "中".encode()


def test_ids_by_hand(read: Callable[..., BPETokenizer]) -> None:
    """Bytes are numbered from behind: b is 255 - 98; then bc 256, ' a' 257, ' abc' 258."""
    ours = read()
    assert ours.encode("b abc") == [255 - STAND_INS.index("b"), 258]
    assert ours.encode(" a bc") == [257, 255 - STAND_INS.index("Ġ"), 256]
    assert ours.merges == [(32, 97), (98, 99), (256, 257)]
    assert ours.special_tokens == {"<|end|>": 259}
    assert ours.decode([258, 259]) == " abc<|end|>"


def test_such_a_tokenizer_is_saved(read: Callable[..., BPETokenizer], tmp_path: Path) -> None:
    ours = read()
    ours.save(tmp_path / "ours.json")
    again = BPETokenizer.load(tmp_path / "ours.json")
    assert again.encode("b abc a") == ours.encode("b abc a")


def test_line_ends_and_the_version_may_be_missing(read: Callable[..., BPETokenizer]) -> None:
    assert read("Ġ a\r\nb c\r\nĠa bc").merges == read().merges
    # A first merge of number signs is none of the version.
    assert read("# #\n" + MERGES[14:], [*TOKENS, "##"]).merges[0] == (35, 35)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"merges": "Ġ a b\n"}, "merges.txt, line 1: a merge is two tokens, got 'Ġ a b'"),
        ({"merges": "Ġ a\nb  c\n"}, "line 2: a merge is two tokens, got 'b  c'"),
        ({"merges": "Ġ a\nb \n"}, "line 2: a merge is two tokens, got 'b '"),
        ({"merges": "Ġ a\n#version x\n"}, "line 2: no merge before it makes '#version'"),
        ({"merges": "Ġa bc\n"}, "line 1: no merge before it makes 'Ġa'"),
        ({"merges": "Ġ a\nĠa bc\n"}, "line 2: no merge before it makes 'bc'"),
        ({"merges": "Ġ a\na a\n"}, "line 2: 'aa' is not in the vocabulary"),
        ({"merges": "Ġ a\nĠ a\n"}, "line 2: 'Ġa' was made before"),
        ({"merges": b"\xff a\n"}, "merges.txt is not UTF-8"),
        ({"tokens": TOKENS[1:]}, "vocab.json: all 256 bytes must be tokens, 1 lack, first"),
        ({"tokens": "[1]"}, "vocab.json: the vocabulary must be an object"),
        ({"tokens": "{"}, "vocab.json: no JSON in UTF-8"),
        ({"tokens": '{"a": 1, "a": 2}'}, "vocab.json: .*key 'a' is repeated"),
        ({"tokens": '{"a": true}'}, "ids are distinct integers >= 0, got True for 'a'"),
        ({"tokens": '{"a": 1, "b": 1}'}, "ids are distinct integers >= 0, got 1 for 'b'"),
        ({"tokens": '{"a": -1}'}, "ids are distinct integers >= 0, got -1 for 'a'"),
        ({"special": ()}, r"special_tokens must name .*, \['<\|end\|>'\], got \(\)"),
        ({"special": ["<|end|>", "<x>"]}, "special_tokens must name the tokens that no merge"),
        ({"special": "<|end|>"}, "special_tokens must name the tokens that no merge makes"),
        ({"pattern": "("}, "not a regular expression"),
    ],
)
def test_wrong_files_are_refused(
    changed: dict[str, Any], message: str, read: Callable[..., BPETokenizer]
) -> None:
    with pytest.raises(ValueError, match=message):
        read(**changed)
