"""The measure of the tests is itself tested: which mutants there are, and that each one is felt."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from llmref.rl.gspo import sequence_ratio
from tests.mutation.__main__ import REASONS, as_json, as_table, key, main, rejected_before
from tests.mutation.by_page import checked
from tests.mutation.by_tests import files_of_tests
from tests.mutation.calls import recorded
from tests.mutation.forked import ALIVE, KILLED, outcome
from tests.mutation.install import install
from tests.mutation.sites import Mutant, files, mutants_of, topics
from tests.small_site import ROOT

SOURCE = '''
"""A module."""
LIMIT = 3

def plus(a: int | None, b=1):
    """Adds 2 and 2."""
    if a < 0:
        row = 7
        raise ValueError(f"{a + 1} must not be below {-1}")
    return a + b

class Both:
    size: int = 4

    @property
    def two(self):
        return 1 + 1

    @staticmethod
    def less(a):
        return dict(zip([a - 1], "a", strict=True))
'''


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "llmref" / "group").mkdir(parents=True)
    (tmp_path / "llmref" / "group" / "topic.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def test_every_topic_has_mutants_and_its_words_have_none(made: Path) -> None:
    found = mutants_of("group/topic", made)
    assert {(it.function, it.change) for it in found} >= {
        ("", "3 becomes one more"),
        ("plus", "Add becomes Sub"),
        ("plus", "1 becomes one less"),
        ("Both.two", "Add becomes Sub"),
        ("Both.less", "Sub becomes Add"),
    }
    assert 9 not in {it.line for it in found}  # what an error says
    assert {it.line for it in found if it.kind == "refusal"} == {7, 8}
    assert {it.line for it in found if it.kind == "default"} == {5, 13}
    unfelt = {"BitOr becomes BitAnd", "True becomes False"}  # an annotation, and strict=
    assert not unfelt & {it.change for it in found}
    assert len({it.name for it in found}) < len(found)  # two constants of one line: both are tried
    assert all(files(topic)[0].is_file() for topic in topics())


def of(change: str, function: str, made: Path) -> Mutant:
    return next(
        it
        for it in mutants_of("group/topic", made)
        if (it.change, it.function) == (change, function)
    )


HELPERS = """
def require_even(a, b):
    half = a / 2
    if half != round(half):
        raise ValueError("odd")
    return a

def require_half(a):
    if a < 0:
        raise ValueError("negative")
    return a / 2

def _fits(a):
    return a + 1 > 2

def _both(a):
    return a + 1

def plus(a):
    if not _fits(_both(a)):
        raise ValueError(f"{a} does not fit")
    return _both(a)
"""


def test_what_only_leads_to_a_refusal_is_no_formula(made: Path) -> None:
    """Unless it computes something that is used as well."""
    (made / "llmref" / "group" / "topic.py").write_text(HELPERS, encoding="utf-8")
    found = mutants_of("group/topic", made)
    of_formulas = {it.function for it in found if it.kind == "formula"}
    assert of_formulas == {"require_half", "_both"}
    assert {it.function for it in found} - of_formulas == {"require_even", "_fits"}
    assert {it.kind for it in found if it.code.startswith("if a < 0")} == {"refusal"}


@pytest.fixture
def module(made: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made_module = ModuleType("llmref.group.topic")
    made_module.__file__ = "topic.py"
    exec(compile(SOURCE, "llmref/group/topic.py", "exec"), vars(made_module))
    monkeypatch.setitem(sys.modules, "llmref.group.topic", made_module)
    return made_module


def test_who_imported_a_function_by_name_has_the_mutant_too(module: ModuleType, made: Path) -> None:
    plus, both = module.plus, module.Both()
    install(of("Add becomes Sub", "plus", made))
    assert plus(5, 2) == 3
    install(of("1 becomes one more", "plus", made))
    assert plus(5) == 7
    install(of("Add becomes Sub", "Both.two", made))
    assert both.two == 0
    install(of("Sub becomes Add", "Both.less", made))
    assert both.less(1) == {2: "a"}


def test_a_constant_is_replaced_where_it_was_imported_to(
    module: ModuleType, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ModuleType("llmref.group.other")
    vars(other)["LIMIT"] = module.LIMIT
    monkeypatch.setitem(sys.modules, "llmref.group.other", other)
    install(of("3 becomes one more", "", made))
    assert (module.LIMIT, vars(other)["LIMIT"]) == (4, 4)


def without_end() -> bool:
    time.sleep(60)
    return True


def test_what_fails_crashes_or_never_ends_is_killed() -> None:
    assert outcome(lambda: True, 5) == ALIVE
    assert outcome(lambda: False, 5) == KILLED
    assert outcome(lambda: bool(1 / 0), 5) == KILLED
    started = time.monotonic()
    assert outcome(without_end, 0.2) == KILLED
    assert time.monotonic() - started < 5


def test_calls_are_seen_by_file_and_line() -> None:
    with recorded({"llmref/rl/gspo.py"}) as seen:
        sequence_ratio(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    (file,) = {name for name, _ in seen}
    lines = Path(sequence_ratio.__code__.co_filename).read_text(encoding="utf-8").splitlines()
    tree = ast.parse("\n".join(lines))
    start = next(it.lineno for it in tree.body if getattr(it, "name", "") == "sequence_ratio")
    assert file == "llmref/rl/gspo.py"
    assert start in {line for _, line in seen}


def test_a_decorated_function_is_entered_at_its_decorator(module: ModuleType, made: Path) -> None:
    mutant = of("Add becomes Sub", "Both.two", made)
    with recorded({"llmref/group/topic.py"}) as seen:
        assert module.Both().two == 2
    assert [mutant.is_entered(place) for place in seen] == [True]


def test_the_tests_and_the_page_of_a_topic_reject_a_mutant_and_pass_without_one() -> None:
    """Run as `make mutate` runs it, in a process of its own."""
    program = """
import ast
from dataclasses import replace
from tests.mutation.by_page import Page, checked
from tests.mutation.by_tests import TopicTests
from tests.mutation.sites import mutants_of
topic, names = "rl/gspo", {"llmref/rl/gspo.py"}
found = [it for it in mutants_of(topic) if it.change == "Div becomes Mult"][:1]
source = open("llmref/rl/gspo.py").read()
both = [*found, *(replace(it, tree=ast.parse(source), change="none") for it in found)]
tests = TopicTests(topic, names)
by_tests = [tests.reject(it) for it in both]
page = Page(topic, names)
by_page = dict(page.reject(both))
print(*by_tests, *(by_page[it] for it in both), *page.results(found[0])[:2])
"""
    expected = ["killed", "alive", "killed", "alive", "gspo-amgm", "gspo-by-hand"]
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split()[-6:] == expected, done.stderr[-2000:]


def test_a_cell_checks_the_results_that_its_calls_name() -> None:
    cell = """
verify.allclose("a-one", 1, 1.0)
with verify.timing("a-two"): pass
shown = verify.Mean("x", given=id("a-three"))
print("a-four"), judge.verify("a-five"), verify.near(name, "a-six")
"""
    assert checked(cell) == {"a-one", "a-two"}


def test_the_table_of_all_topics_says_whether_it_is_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apart from each other: changed values, changed refusals, and what makes no difference."""
    one = {"name": "a.py:3: 1 becomes one less", "code": "x = 1", "results": ["a-one", "a-two"]}
    reasons = [{"file": "a.py", "code": "x = 1", "change": "1 becomes one less", "reason": "so"}]
    monkeypatch.setattr("tests.mutation.__main__.REASONS", tmp_path / "reasons.json")
    (tmp_path / "reasons.json").write_text(json.dumps(reasons), encoding="utf-8")
    mutants = [
        one | {"kind": kind, "tests": tests, "page": page, "code": code}
        for kind, tests, page, code in (
            ("formula", "killed", "killed", "x = 1"),
            ("formula", "killed", "alive", "x = 1"),
            ("formula", "alive", "killed", "x = 2"),
            ("refusal", "killed", "not tried", "if x > 1:"),
            ("default", "alive", "not tried", "x=2,"),
            ("formula", "alive", "alive", "x = 1"),
        )
    ]
    known = {"a/b": {"all": True, "mutants": mutants}}
    lines = as_table(known, "`abc`").splitlines()
    assert lines[2:4] == [
        "| all | 3 | 2, 66 % | 2, 66 % | 2 | 1, 50 % | 1 |",
        "| {doc}`a/b <a/b>` | 3 | 2 | 2 | 2 | 1 | 1 |",
    ]
    assert lines[-1] == "By `make mutate WRITE=1`. Measured at commit `abc`."
    assert json.loads(as_json(known)) == {"a-one": [2, 3], "a-two": [2, 3]}
    assert "A sample" in as_table({"a/b": {"all": False, "mutants": mutants}})


def test_every_reason_is_of_a_line_that_is_there() -> None:
    for it in json.loads(REASONS.read_text(encoding="utf-8")):
        lines = (ROOT / it["file"]).read_text(encoding="utf-8").splitlines()
        assert it["code"] in {line.strip() for line in lines}, it
        assert it["reason"]


def test_a_topic_has_a_file_of_tests_and_perhaps_a_folder() -> None:
    names = {topic: [path.name for path in files_of_tests(topic)] for topic in topics()}
    assert all(f"test_{topic.split('/')[1]}.py" == found[0] for topic, found in names.items())
    assert "test_tokenizer_json.py" in names["components/bpe"]
    assert names["rl/kl"] == ["test_kl.py"]


def test_a_change_that_no_test_rejects_fails_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From what is kept, so nothing is tried again."""
    change = {"name": "a.py:3: 1 becomes one less", "code": "x = 1", "kind": "formula"}
    mutants = [change | {"tests": "alive", "page": "killed", "results": []}]
    known = {"topic": "rl/gspo", "key": key("rl/gspo"), "all": True, "mutants": mutants}
    (tmp_path / "rl.gspo.json").write_text(json.dumps(known), encoding="utf-8")
    monkeypatch.setattr("tests.mutation.__main__.KEPT", tmp_path)
    assert main(["rl/gspo"]) == 0
    assert main(["rl/gspo", "--strict"]) == 1
    assert "a.py:3" in capsys.readouterr().out
    mutants[0]["tests"] = "killed"
    (tmp_path / "rl.gspo.json").write_text(json.dumps(known), encoding="utf-8")
    assert main(["rl/gspo", "--strict"]) == 0
    with pytest.raises(SystemExit):
        main(["rl/gspo", "--write"])
    assert "of all topics" in capsys.readouterr().err


def test_what_was_rejected_in_a_line_that_is_as_it_was_need_not_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the words of the line, and in their order; not by its number."""
    monkeypatch.setattr("tests.mutation.__main__.KEPT", tmp_path)
    found = mutants_of("rl/gspo")
    assert rejected_before("rl/gspo", found) == (set(), set())
    one, two, three = [it for it in found if it.kind == "formula"][:3]
    known = [
        {"name": f"{it.file}:9999: {it.change}", "code": code, "tests": tests, "page": page}
        for it, code, tests, page in (
            (one, one.code, "killed", "alive"),
            (two, two.code, "alive", "killed"),
            (three, "another line", "killed", "killed"),
        )
    ]
    (tmp_path / "rl.gspo.json").write_text(json.dumps({"mutants": known}), encoding="utf-8")
    assert rejected_before("rl/gspo", found) == ({one}, {two})
