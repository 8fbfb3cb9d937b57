"""tokenizer.json: each part by hand, and everything that is not read refused by its name.

tests/oracle compares with tokenizers itself.
"""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmref.components.bpe import BPETokenizer
from llmref.components.bpe._patterns import portable_pattern
from llmref.components.bpe._pipeline import joined_bytes
from llmref.components.bpe._text import STAND_INS, compile_pattern, isolate

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPACES = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
SIGNS = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}


def split(pattern: str, **changes: Any) -> dict[str, Any]:
    form = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return form | changes


def added(content: str, number: int, **changes: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **flags, **changes}


def byte_tokens(*more: str) -> dict[str, int]:
    """The 256 bytes as 0 to 255, then more tokens."""
    return {token: i for i, token in enumerate((*STAND_INS, *more))}


def byte_model(*more: str, merges: Any = (), **changes: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": byte_tokens(*more), "merges": list(merges), **changes}


def sign_model(*more: str, **changes: Any) -> dict[str, Any]:
    """<unk> as 0, the tokens of bytes as 1 to 256, then more."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *more]
    model = {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "merges": []}
    return model | {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True} | changes


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., BPETokenizer]:
    def make(model: Any = None, **changes: Any) -> BPETokenizer:
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": BYTES,
            "post_processor": None,
            "decoder": BYTE_LEVEL,
            "model": byte_model() if model is None else model,
        }
        content = {name: value for name, value in (content | changes).items() if value != "none"}
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return BPETokenizer.from_tokenizer_json(path)

    return make


Read = Callable[..., BPETokenizer]


# The model


def test_merges_are_applied_by_rank_and_may_be_strings_or_pairs(read: Read) -> None:
    """The pair bc comes before ab, so abc is a, bc."""
    tokens = ("ab", "bc", "Ġa")
    for merges in (["b c", "a b", "Ġ a"], [["b", "c"], ["a", "b"], ["Ġ", "a"]]):
        ours = read(byte_model(*tokens, merges=merges))
        assert ours.encode("abcab a") == [97, 257, 256, 258]


def test_two_merges_may_make_one_token_and_use_a_later_one(read: Read) -> None:
    """That is abc, of ab and c or of a and bc; ab is made at a higher rank."""
    merges = ["ab c", "a bc", "a b"]
    ours = read(byte_model("abc", "ab", "bc", merges=merges))
    assert ours.encode("abc") == [256]
    ours = read(byte_model("abc", "bc", merges=["a bc", "b c"]))
    assert ours.encode("abcbc") == [256, 257]


def test_a_whole_piece_is_found_only_with_ignore_merges(read: Read) -> None:
    for ignore, ids in ((True, [256]), (False, [97, 98, 99])):
        ours = read(byte_model("abc", ignore_merges=ignore), pre_tokenizer=BYTE_LEVEL)
        assert ours.encode("abc") == ids
        assert ours.encode("abcd") == [*b"abcd"]


def test_characters_without_a_token_become_their_bytes(read: Read) -> None:
    ours = read(sign_model("a", "é", "▁"), pre_tokenizer=None, normalizer=SIGNS, decoder=SPACES)
    assert ours.encode("aé中 ") == [259, 257, 258, 1 + 0xE4, 1 + 0xB8, 1 + 0xAD, 259]
    assert ours.decode(ours.encode("aé中 "), errors="strict") == "aé中 "
    assert ours.token_bytes(259) == b" "
    assert ours.token_bytes(1 + 0xE4) == b"\xe4"
    assert ours.decode_bytes(ours.encode("a中")) == " a中".encode()


def test_unknown_characters_are_fused_if_asked(read: Read) -> None:
    for fuse, ids in ((True, [0, 257, 0]), (False, [0, 0, 257, 0])):
        model = sign_model("a", byte_fallback=False, fuse_unk=fuse)
        ours = read(model, pre_tokenizer=None, decoder={"type": "Fuse"})
        assert ours.encode("xyax") == ids
        assert ours.decode([0, 257]) == "<unk>a"


def test_an_unknown_sign_that_is_a_token_is_not_fused(read: Read) -> None:
    """The token ? is known, and stands for what is unknown beside it."""
    model = {"type": "BPE", "vocab": {"?": 0, "a": 1}, "merges": []}
    ours = read(
        model | {"unk_token": "?", "fuse_unk": True}, pre_tokenizer=None, decoder={"type": "Fuse"}
    )
    assert ours.encode("?xx?a") == [0, 0, 0, 1]


def test_a_character_that_has_no_id_is_refused(read: Read) -> None:
    """In tokenizers it is dropped, and the text does not come back."""
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    ours = read(model, pre_tokenizer=None, decoder={"type": "Fuse"})
    with pytest.raises(ValueError, match="no token for 'b', no unk_token and no byte_fallback"):
        ours.encode("ab")


# Normaliser and pre-tokeniser


def test_nfc_comes_before_the_model(read: Read) -> None:
    ours = read(byte_model("Ã©", merges=["Ã ©"]), normalizer={"type": "NFC"})
    assert ours.encode("e\u0301") == ours.encode("é") == [256]
    assert ours.decode(ours.encode("e\u0301")) == "é"


def test_normalisers_follow_each_other(read: Read) -> None:
    steps = [
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": r"\1"},
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x"}]},
        {"type": "NFC"},
    ]
    ours = read(normalizer={"type": "Sequence", "normalizers": steps})
    assert ours.decode(ours.encode("a \n b")) == r"xa\1b"
    assert ours.encode("") == []
    gone = {"type": "Replace", "pattern": {"String": "a"}, "content": ""}
    start = {"type": "Prepend", "prepend": "x"}
    ours = read(normalizer={"type": "Sequence", "normalizers": [gone, start]})
    assert ours.encode("a") == []
    assert ours.encode("ab") == [*b"xb"]


def test_splits_follow_each_other_and_keep_what_is_between(read: Read) -> None:
    """a1 is a token; the second split sees only what the first left."""
    merges = ["a 1", "1 2", "b b"]
    model = byte_model("a1", "12", "bb", merges=merges)
    chain = {"type": "Sequence", "pretokenizers": [split(r"\p{N}{1,3}"), split("a|b"), BYTES]}
    assert read(model, pre_tokenizer=BYTES).encode("a12bb") == [256, *b"2", 258]
    assert read(model, pre_tokenizer=chain).encode("a12bb") == [*b"a", 257, *b"bb"]
    literal = split("") | {"pattern": {"String": "2b"}}
    chain = {"type": "Sequence", "pretokenizers": [literal, BYTES]}
    assert read(model, pre_tokenizer=chain).encode("a12bb") == [256, *b"2bb"]


def test_digits_are_cut_alone_or_in_runs(read: Read) -> None:
    model = byte_model("12", "a1", merges=["a 1", "1 2"])
    for individual, ids in ((True, [*b"a12"]), (False, [*b"a", 256])):
        digits = {"type": "Digits", "individual_digits": individual}
        chain = {"type": "Sequence", "pretokenizers": [digits, BYTES]}
        assert read(model, pre_tokenizer=chain).encode("a12") == ids


def test_byte_level_may_cut_and_put_a_space_before(read: Read) -> None:
    model = byte_model("Ġa", "aĠ", merges=["a Ġ", "Ġ a"])
    assert read(model, pre_tokenizer=BYTES).encode("a a") == [257, *b"a"]
    assert read(model, pre_tokenizer=BYTE_LEVEL).encode("a a") == [*b"a", 256]
    prefix = BYTE_LEVEL | {"add_prefix_space": True}
    assert read(model, pre_tokenizer=prefix).encode("a a") == [256, 256]
    assert read(model, pre_tokenizer=prefix).encode(" a") == [256]
    assert read(model, pre_tokenizer=prefix).encode("") == []


def test_cuts_are_those_of_matches_and_gaps() -> None:
    assert isolate("ab12c", compile_pattern("[0-9]")) == ["ab", "1", "2", "c"]
    assert isolate("aab", compile_pattern("b?")) == ["a", "a", "b"]
    assert isolate("", compile_pattern("a")) == []


# Added tokens


def test_added_tokens_are_found_and_special_ones_only_if_allowed(read: Read) -> None:
    ours = read(added_tokens=[added("<s>", 256, special=True), added("<t>", 257)])
    assert ours.special_tokens == {"<s>": 256}
    assert ours.added_tokens == {"<t>": 257}
    assert ours.encode("<s>a<t>", allowed_special="all") == [256, *b"a", 257]
    assert ours.encode("<s>a<t>") == [*b"<s>a", 257]
    assert ours.encode("<s>a<t>", allowed_special={"<s>"}) == [256, *b"a", 257]
    assert ours.decode([256, 97, 257]) == "<s>a<t>"
    with pytest.raises(ValueError, match=r"allowed_special names no special token: \['<t>'\]"):
        ours.encode("a", allowed_special={"<t>"})


def test_a_hidden_special_token_is_text_as_a_whole(read: Read) -> None:
    """As in tokenizers: ab inside the hidden token is not sought again."""
    ours = read(added_tokens=[added("<ab>", 256, special=True), added("ab", 257)])
    assert ours.encode("<ab>ab") == [*b"<ab>", 257]


def test_a_merge_reaches_over_a_hidden_token(read: Read) -> None:
    ours = read(byte_model("a<", merges=["a <"]), added_tokens=[added("<s>", 257, special=True)])
    assert ours.encode("a<s>") == [256, *b"s>"]
    assert ours.encode("a<s>", allowed_special="all") == [97, 257]


def test_normalised_tokens_are_sought_after_normalisation(read: Read) -> None:
    tokens = [added("e\u0301", 256, normalized=True), added("o\u0301", 257)]
    ours = read(added_tokens=tokens, normalizer={"type": "NFC"})
    assert ours.encode("é") == ours.encode("e\u0301") == [256]
    assert ours.encode("o\u0301") == [257]
    assert ours.encode("ó") == [*"ó".encode()]
    start = {"type": "Prepend", "prepend": "_"}
    ours = read(added_tokens=[added("xa", 256, normalized=True)], normalizer=start)
    assert ours.encode("xaxa") == [256, *b"xa"]  # it is sought as _xa


def test_each_text_between_tokens_is_normalised_alone(read: Read) -> None:
    """So every one gets its sign, as Llama 2's do."""
    ours = read(
        sign_model("a", "▁"),
        pre_tokenizer=None,
        normalizer=SIGNS,
        decoder=SPACES,
        added_tokens=[added("<unk>", 0), added("<t>", 259)],
    )
    assert ours.encode("a<t>a<unk>") == [258, 257, 259, 258, 257, 0]


def test_an_added_token_decodes_to_its_own_text(read: Read) -> None:
    """Where é is read as the stand-in of a byte, it is half a character."""
    ours = read(added_tokens=[added("éx", 256), added("a b", 257)])
    assert ours.decode(ours.encode("éxa b"), errors="strict") == "éxa b"
    with pytest.raises(ValueError, match=r"'é' is the model's token of the bytes b'\\xe9'"):
        read(added_tokens=[added("é", STAND_INS.index("é"))])


# Decoder


def test_runs_of_bytes_are_joined_or_replaced_one_by_one() -> None:
    assert joined_bytes(["a", "<0xC3>", "<0xA9>", "b"], "strict") == ["a", "é", "b"]
    assert joined_bytes(["<0xC3>", "<0x41>"], "replace") == ["\ufffd\ufffd"]
    assert joined_bytes(["<0x4>", "<0xc3>", "<0xa9>"], "strict") == ["<0x4>", "é"]
    with pytest.raises(UnicodeDecodeError):
        joined_bytes(["<0xC3>"], "strict")


def test_only_the_first_space_is_stripped_and_only_if_it_is_one(read: Read) -> None:
    ours = read(sign_model("a", "▁", "▁▁"), pre_tokenizer=None, normalizer=SIGNS, decoder=SPACES)
    assert ours.decode([259, 257, 258]) == " a "
    assert ours.decode([257, 258]) == "a "
    strip = {"type": "Strip", "content": "▁", "start": 0, "stop": 0}
    none = read(sign_model("a", "▁"), pre_tokenizer=None, decoder=sequence("decoders", strip))
    assert none.decode([258, 257]) == "▁a"
    assert ours.decode([]) == ""
    with pytest.raises(UnicodeDecodeError):
        ours.decode([1 + 0xC3], errors="strict")
    with pytest.raises(ValueError, match="errors must be 'strict' or 'replace', got 'ignore'"):
        ours.decode([257], errors="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no token has the id 260; vocab_size is 260"):
        ours.decode([260])
    with pytest.raises(ValueError, match="encode_bytes needs a byte-level vocabulary"):
        ours.encode_bytes(b"a")


def test_a_byte_token_is_its_text_without_byte_fallback(read: Read) -> None:
    model = {"type": "BPE", "vocab": {"<0x41>": 0}, "merges": []}
    ours = read(model, pre_tokenizer=None, decoder={"type": "Fuse"})
    assert ours.token_bytes(0) == b"<0x41>"
    assert ours.decode([0]) == "<0x41>"


def test_bytes_are_encoded_by_a_byte_level_vocabulary(read: Read) -> None:
    ours = read(byte_model("ÿþ", merges=["ÿ þ"]))
    assert ours.encode_bytes(b"\xff\xfe ") == [256, 32]
    assert ours.decode_bytes([256, 32]) == b"\xff\xfe "
    with pytest.raises(TypeError, match="encode_bytes needs bytes, got str"):
        ours.encode_bytes("a")  # type: ignore[arg-type]


# What is refused


def sequence(name: str, *parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", name: list(parts)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "field 'extra' is not read"),
        ({"version": "2.0"}, "version must be '1.0', others are not read, got '2.0'"),
        ({"truncation": {"max_length": 3}}, "truncation must be None"),
        ({"padding": {"length": 3}}, "padding must be None"),
        ({"padding": "none"}, "field 'padding' must be null or dict, got nothing"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer of type 'Lowercase' is not read"),
        ({"normalizer": {"type": "NFC", "x": 1}}, "normalizer NFC: field 'x' is not read"),
        ({"normalizer": sequence("normalizers", {"type": "NFKC"})}, "'NFKC' is not read"),
        ({"normalizer": sequence("normalizers", "NFC")}, "normalizer must be an object"),
        (
            {"normalizer": {"type": "Replace", "pattern": {"Regex": "^a"}, "content": ""}},
            r"normalizer Replace: '\^a' at character 0 of the pattern is not read",
        ),
        (
            {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": ""}},
            "pattern must be one String or Regex, not empty",
        ),
        (
            {"normalizer": {"type": "Replace", "pattern": {"Glob": "a"}, "content": ""}},
            "pattern must be one String or Regex, not empty, got {'Glob': 'a'}",
        ),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre_tokenizer of type 'Metaspace' is not read"),
        ({"pre_tokenizer": split("a", behavior="Removed")}, "Split: behavior must be 'Isolated'"),
        ({"pre_tokenizer": split("a", invert=True)}, "Split: invert must be False"),
        ({"pre_tokenizer": split("(?i)a")}, r"Split: '\(\?i\)a' at character 0 of the pattern"),
        ({"pre_tokenizer": split(")")}, "Split: not a regular expression"),
        (
            {"pre_tokenizer": sequence("pretokenizers", BYTES, BYTES)},
            "a second ByteLevel is not read",
        ),
        (
            {"pre_tokenizer": {"type": "Digits", "individual_digits": 1}},
            "'individual_digits' must be bool, got 1",
        ),
        ({"post_processor": {"type": "BertProcessing"}}, "'BertProcessing' is not read"),
        ({"decoder": None}, r"decoder must be ByteLevel alone, or some of .*, got \[\]"),
        ({"decoder": {"type": "WordPiece"}}, "decoder of type 'WordPiece' is not read"),
        ({"decoder": sequence("decoders", BYTE_LEVEL, {"type": "Fuse"})}, "ByteLevel alone"),
        (
            {"decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 1}},
            "Strip: stop must be 0",
        ),
        (
            {"decoder": {"type": "Strip", "content": " ", "start": -1, "stop": 0}},
            "start >= 0, got {'content': ' ', 'start': -1, 'stop': 0}",
        ),
        (
            {"decoder": {"type": "Strip", "content": "ab", "start": 1, "stop": 0}},
            "Strip takes one character",
        ),
        ({"added_tokens": [added("<s>", 256, lstrip=True)]}, "'<s>': lstrip must be False"),
        ({"added_tokens": [added("<s>", 256, rstrip=True)]}, "'<s>': rstrip must be False"),
        (
            {"added_tokens": [added("<s>", 256, single_word=True)]},
            "'<s>': single_word must be False",
        ),
        ({"added_tokens": [added("", 256)]}, "added tokens are distinct and not empty, got ''"),
        (
            {"added_tokens": [added("a", 97), added("a", 97)]},
            "added tokens are distinct and not empty, got 'a'",
        ),
        (
            {"added_tokens": [added("<s>", 300)]},
            "'<s>' has the id 300 in the file, and tokenizers gives it 256",
        ),
        ({"added_tokens": [added("a", 98)]}, "'a' has the id 98 .*, and tokenizers gives it 97"),
        (
            {
                "added_tokens": [
                    added("e\u0301x", 256, normalized=True),
                    added("éx", 257, normalized=True),
                ],
                "normalizer": {"type": "NFC"},
            },
            "distinct and not empty after normalisation, got 'éx' of 'éx'",
        ),
        ({"added_tokens": [added("<s>", True)]}, "field 'id' must be int, got True"),
        ({"added_tokens": [{"id": 256}]}, r"added_tokens\[0\]: field 'content' must be str"),
    ],
)
def test_whatever_is_not_read_is_refused_by_name(
    changes: dict[str, Any], message: str, read: Read
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(**changes)
    assert str(error.value).count("tokenizer.json: ") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "WordPiece"}, "model: type must be 'BPE', others are not read"),
        ({"dropout": 0.1}, "model: dropout must be None or 0 or 0.0, others are not read, got 0.1"),
        ({"dropout": 1}, "model: dropout must be None or 0 or 0.0, others are not read, got 1"),
        ({"continuing_subword_prefix": "##"}, "continuing_subword_prefix must be None or ''"),
        ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix must be None or ''"),
        ({"unk_token": "<x>"}, "unk_token '<x>' is not in the vocabulary"),
        ({"byte_fallback": True}, "byte_fallback needs 256 tokens, 256 lack, as '<0x00>'"),
        ({"cache": 1}, "model: field 'cache' is not read"),
        ({"vocab": {"a": 0.5}}, "ids are distinct integers >= 0, got 0.5 for 'a'"),
        ({"merges": ["a"]}, "merge 0 must be two tokens, got 'a'"),
        ({"merges": [["a", "b", "c"]]}, "merge 0 must be two tokens"),
        ({"merges": [["a", 1]]}, "merge 0 must be two tokens"),
        ({"merges": ["a b"]}, "merge 0 needs the token 'ab', got no such token"),
        ({"merges": ["a 中"]}, "merge 0 needs the token '中', got no such token"),
    ],
)
def test_models_that_are_not_read_are_refused(
    changes: dict[str, Any], message: str, read: Read
) -> None:
    with pytest.raises(ValueError, match=message):
        read(byte_model(**changes))


def test_damaged_files_are_refused(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"merge 1 repeats merge 0: \['a', 'b'\]"):
        read(byte_model("ab", merges=["a b", ["a", "b"]]))
    model = {"type": "BPE", "vocab": {"a": 2, "b": 7}, "merges": []}
    with pytest.raises(ValueError, match="added token '<s>' has an id in use, got 2"):
        read(model, pre_tokenizer=None, added_tokens=[added("<s>", 2)])
    for data in (b"", b"\xff", b"[" * 10**5, b'{"a": 1, "a": 2}'):
        (tmp_path / "t.json").write_bytes(data)
        with pytest.raises(ValueError, match=r"t\.json: no JSON in UTF-8"):
            BPETokenizer.from_tokenizer_json(tmp_path / "t.json")
    (tmp_path / "t.json").write_bytes(b"[1]")
    with pytest.raises(ValueError, match="must be an object, got"):
        BPETokenizer.from_tokenizer_json(tmp_path / "t.json")


def test_old_files_lack_options_and_the_type(read: Read) -> None:
    """GPT-2's has no type of its model, an empty prefix and a ByteLevel without use_regex."""
    model = {
        "vocab": byte_tokens("Ġa"),
        "merges": ["Ġ a"],
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
    }
    assert read(model, pre_tokenizer=BYTE_LEVEL).encode("a a") == [97, 256]


def test_options_that_a_file_lacks_are_off(read: Read) -> None:
    """No whole pieces, unknown signs one by one, and a Split that keeps its matches."""
    assert read(byte_model("abc")).encode("abc") == [*b"abc"]
    model = {"vocab": {"<unk>": 0, "a": 1}, "merges": [], "unk_token": "<unk>"}
    ours = read(model, pre_tokenizer=None, decoder={"type": "Fuse"})
    assert ours.encode("xya") == [0, 0, 1]
    cut = {name: value for name, value in split("b").items() if name != "invert"}
    chain = sequence("pretokenizers", cut, BYTES)
    assert read(byte_model("ab", merges=["a b"]), pre_tokenizer=chain).encode("ab") == [*b"ab"]
    for dropout in (None, 0, 0.0):
        assert read(byte_model(dropout=dropout)).encode("ab") == [*b"ab"]


def test_post_processors_are_known_and_not_applied(read: Read) -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}},
    }
    both = {"type": "Sequence", "processors": [BYTE_LEVEL, template]}
    ours = read(post_processor=both, added_tokens=[added("<s>", 256, special=True)])
    assert ours.encode("a", allowed_special="all") == [97]


def test_such_a_tokenizer_is_not_saved_and_not_trained(read: Read, tmp_path: Path) -> None:
    ours = read()
    with pytest.raises(ValueError, match="save cannot express a tokenizer.json: keep the file"):
        ours.save(tmp_path / "x")
    with pytest.raises(ValueError, match="a rank file cannot express a tokenizer.json"):
        ours.save_tiktoken(tmp_path / "x")
    with pytest.raises(ValueError, match="a vocabulary from a file is not trained"):
        ours.train("aa", 257)
    assert not (tmp_path / "x").exists()
    assert ours.encode("aa") == [97, 97]


@pytest.mark.parametrize(
    "pattern",
    [
        *("^a", r"\w", r"\h", r"\b", r"\1", r"\p{Alpha}", r"\p{^L}", "(?i)a", "(?>a)"),
        *("(?i:ss)", "(?i:it)", r"(?i:\p{L})", r"\p{N}{1,3}+", "a{2}?", "a{2}*", "{"),
        *("[a[b]]", "[a&&b]", "[[:alpha:]]", r"[\w]", "(?<name>a)", "(?#a)", r"\x41", "[]a]"),
    ],
)
def test_patterns_on_which_engines_differ_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="here: .* since engines differ on it"):
        portable_pattern(pattern, "here")


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"(?i:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
        r"[一-龥぀-ゟ゠-ヿ]+|\p{Han}++|(?<=a)b*?|(?<!c)(d|e)|\P{Lu}{2,}|.",
    ],
)
def test_patterns_of_published_models_are_read(pattern: str) -> None:
    assert portable_pattern(pattern, "here").pattern == pattern


def test_the_end_of_a_line_is_an_end() -> None:
    """As in Ruby; in Python only with a flag."""
    pattern = portable_pattern("a$|b", "here")
    assert isolate("aa\naa", pattern) == ["a", "a", "\na", "a"]


def test_nfc_is_the_one_of_python(read: Read) -> None:
    ours = read(normalizer={"type": "NFC"})
    for text in ("\u1e9b\u0323", "a\u0328\u0301", "\u1112\u1161\u11ab", "\u212b"):
        assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFC", text)
