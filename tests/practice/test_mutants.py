"""The checks of code by hand see every slip: each mutant of the code fails on its own page."""

import ast
import importlib
import signal
import sys
import types
from collections.abc import Iterator

import pytest
import torch

from tests.mutants import mutants
from tests.pages import cells
from tests.small_site import ROOT

FOLDER = ROOT / "llmref" / "practice" / "by_hand"
TOPICS = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix()
    for path in FOLDER.glob("*/*.py")
    if path.stem != "__init__"
)
# What gives the same on every input that the code is for: topic, line of code, change.
EQUIVALENT = {
    (
        "training/gradient_accumulation",
        "if norm > max_norm:",
        "Gt becomes GtE",
    ): "at the limit the factor is 1",
    (
        "functional/distillation",
        "gap = torch.where(p > 0",
        "0.0 becomes one more",
    ): "multiplied by p, which is 0 there",
    ("training/muon", "tall = ", "Gt becomes GtE"): "the other Gram matrix costs more, no more",
    ("training/muon", "tall = ", "Gt becomes LtE"): "the other Gram matrix costs more, no more",
    ("training/muon", "tall = ", "0 becomes one more"): "the other Gram matrix costs more, no more",
    ("training/muon", "tall = ", "1 becomes one less"): "the other Gram matrix costs more, no more",
    ("training/muon", "x = g / (g.abs().max() or", "1 becomes one more"): "half of zeros is zeros",
    ("attention/online_softmax", "out = q.new_zeros(", "1 becomes one less"): "zeros broadcast",
    (
        "inference/beam_search",
        "for t in range(1,",
        "1 becomes one more",
    ): "nothing is live after T",
    ("inference/beam_search", "top, index = ", "2 becomes one more"): "B of 2 B cannot end",
    (
        "inference/beam_search",
        "if len(live) == 0 or",
        "GtE becomes Gt",
    ): "a tie is found later, and loses to the first",
    (
        "functional/quantization",
        "return gaps.abs().argmin(",
        "abs becomes square",
    ): "the nearest level has the least square too",
}


def run(topic: str, code: types.CodeType, cells: list[types.CodeType]) -> None:
    """Run the cells, with a module of this code in place of the topic's code by hand."""
    name = f"llmref.practice.by_hand.{topic.replace('/', '.')}"
    folder, _, topic_name = name.rpartition(".")
    module = types.ModuleType(name)
    exec(code, vars(module))
    sys.modules[name] = module
    setattr(importlib.import_module(folder), topic_name, module)
    scope = {"__name__": "__main__"}
    for cell in cells:
        exec(cell, scope)


@pytest.fixture
def as_in_a_kernel() -> Iterator[None]:
    """Undo what cells do to the process; and let no mutant run for ever."""
    modules = {name: it for name, it in sys.modules.items() if name.startswith("llmref.practice")}
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    signal.alarm(0)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    for name in [name for name in sys.modules if name.startswith("llmref.practice")]:
        if name not in modules:  # loaded by a cell, perhaps as a mutant
            folder, _, last = name.rpartition(".")
            del sys.modules[name]
            if folder in sys.modules:
                delattr(sys.modules[folder], last)
    for name, module in modules.items():
        sys.modules[name] = module
        folder, _, last = name.rpartition(".")
        setattr(sys.modules[folder], last, module)


def too_long(*_: object) -> None:
    raise TimeoutError


@pytest.mark.parametrize("topic", TOPICS)
def test_every_mutant_of_code_by_hand_is_rejected_by_its_page(
    topic: str, as_in_a_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    signal.signal(signal.SIGALRM, too_long)
    source = (FOLDER / f"{topic}.py").read_text(encoding="utf-8")
    checks = [compile(cell, "cell", "exec") for cell in cells(topic, before="\n## Run it")]
    assert checks

    def passes(tree: ast.Module) -> bool:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        signal.alarm(20)
        try:
            run(topic, compile(tree, topic, "exec"), checks)
        except Exception:
            return False
        return True

    assert passes(ast.parse(source)), "the cells must pass with the code as it is"
    lines = source.splitlines()
    alive = [change for change, tree in mutants(source) if passes(tree)]
    for of_topic, start, equivalent in EQUIVALENT:
        if of_topic == topic:
            alive = [it for it in alive if not is_change(it, lines, start, equivalent)]
    assert alive == []


def is_change(change: str, lines: list[str], start: str, wanted: str) -> bool:
    place, _, what = change.partition(": ")
    return what == wanted and lines[int(place.split()[1]) - 1].lstrip().startswith(start)
