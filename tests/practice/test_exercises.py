"""Every exercise: right solutions pass, mistakes and mutants do not, each by its name."""

import ast
import re
from functools import cache
from importlib import import_module
from typing import Any

import pytest
import torch

from llmref.practice import judging
from llmref.practice.calling import as_dtype
from llmref.practice.exercise import Exercise
from llmref.practice.exercises import exercises
from llmref.practice.judging import judge_here
from llmref.records import ids_in_use
from tests.mutants import mutants
from tests.practice.test_mutants import EQUIVALENT as BY_HAND
from tests.practice.test_mutants import is_change
from tests.small_site import ROOT

EXERCISES = list(exercises().values())
# What is equivalent to the judge alone, beside BY_HAND: exercise, line of code, change. It takes
# any type, and leaves open where torch.topk puts tied logits.
EQUIVALENT = {
    ("quantize_symmetric", "return codes.to(", "LtE becomes Lt"): "a wider type, the same integers",
    ("quantize_symmetric", "return codes.to(", "8 becomes one less"): "a wider type too",
    (
        "moe_forward",
        "top, idx = logits.sort(",
        "True becomes False",
    ): "torch sorts rows of up to 16 stably anyway",
    ("top_k", "order = ", "True becomes False"): "torch sorts rows of up to 16 stably anyway",
    ("top_p", "order = ", "True becomes False"): "torch sorts rows of up to 16 stably anyway",
}
of_all = pytest.mark.parametrize("exercise", EXERCISES, ids=[it.name for it in EXERCISES])
SOLUTIONS = {
    name: functions
    for path in sorted((ROOT / "tests" / "practice" / "solutions").glob("[!_]*.py"))
    for name, functions in import_module(f"tests.practice.solutions.{path.stem}").SOLUTIONS.items()
}


@cache
def answer_to(name: str, place: int) -> dict[str, Any]:
    """What the judge says of a mistake; two tests ask for it."""
    exercise = exercises()[name]
    return judge_here(exercise, exercise.variant(exercise.mistakes[place]))


@of_all
def test_the_model_solution_is_right(exercise: Exercise) -> None:
    answer = judge_here(exercise, exercise.solution)
    assert answer["outcome"] == "right"
    assert answer["error"] == 0


@of_all
def test_other_right_solutions_are_right(exercise: Exercise) -> None:
    assert len(SOLUTIONS[exercise.name]) >= 3
    for function in SOLUTIONS[exercise.name]:
        answer = judge_here(exercise, function)
        assert answer["outcome"] == "right", (function.__name__, answer)


@of_all
def test_every_mistake_is_rejected_and_named(exercise: Exercise) -> None:
    assert len(exercise.mistakes) >= 3
    for place, mistake in enumerate(exercise.mistakes):
        answer = answer_to(exercise.name, place)
        assert answer["outcome"] == "wrong", mistake.name
        assert f"'{mistake.name}'" in answer["mistake"]
        assert answer["law"]
        assert answer["problem"]


@of_all
def test_every_other_convention_is_recognised(exercise: Exercise) -> None:
    for convention in exercise.conventions:
        answer = judge_here(exercise, exercise.variant(convention))
        assert (answer["outcome"], answer["convention"]) == ("convention", convention.name)


@of_all
def test_every_mutant_of_the_solution_is_rejected(
    exercise: Exercise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejected(*_: object) -> dict[str, str]:
        return {"outcome": "wrong"}

    monkeypatch.setattr(judging, "_explained", rejected)  # to name each takes most of the time
    scope = vars(import_module(exercise.solution.__module__))
    alive = []
    for change, tree in mutants(exercise.source):
        mutant = dict(scope)
        exec(compile(tree, exercise.name, "exec"), mutant)
        if judge_here(exercise, mutant[exercise.name])["outcome"] == "right":
            alive.append(change)
    lines = exercise.source.splitlines()
    for name, start, equivalent in (*BY_HAND, *EQUIVALENT):
        if name in (exercise.topic, exercise.name):
            alive = [it for it in alive if not is_change(it, lines, start, equivalent)]
    assert alive == []


@of_all
def test_the_inputs_reach_every_branch_and_come_in_the_order_of_size(exercise: Exercise) -> None:
    inputs = exercise.inputs()
    for name, reaches in exercise.branches.items():
        assert any(reaches(*given) for given in inputs), name
        assert not all(reaches(*given) for given in inputs), name
    sizes = [entries(given) for given in inputs]
    assert sizes == sorted(sizes)


def entries(value: Any) -> int:
    """How many numbers an input has in its tensors, those of a pair included."""
    if isinstance(value, (list, tuple)):
        return sum(map(entries, value))
    return value.numel() if isinstance(value, torch.Tensor) else 0


@of_all
def test_laws_hold_for_the_solution_and_are_proved_on_the_site(exercise: Exercise) -> None:
    known = ids_in_use(ROOT / "docs" / "result-ids.txt")
    page = (ROOT / "docs" / f"{exercise.topic}.md").read_text(encoding="utf-8")
    for result in (exercise.definition, *(law.result for law in exercise.laws)):
        assert result in known
        assert f":label: {result}\n" in page
    for law in exercise.laws:
        assert not any(law.breaks(exercise.solution, *given) for given in exercise.inputs())


@of_all
def test_each_law_is_broken_by_a_mistake(exercise: Exercise) -> None:
    for law in exercise.laws:
        wrong = *exercise.mistakes, *exercise.hidden_mistakes
        variants = [exercise.variant(mistake) for mistake in wrong]
        assert any(
            breaks(law.breaks, variant, given)
            for variant in variants
            for given in exercise.inputs()
        ), law.words


def breaks(law: Any, function: Any, given: tuple[Any, ...]) -> bool:
    try:
        return bool(law(function, *given))
    except Exception:
        return False


@of_all
def test_a_counterexample_gives_what_it_says(exercise: Exercise) -> None:
    """Pasted as it is printed, it gives what is expected, and the mistake gives something else."""
    torch.set_default_dtype(torch.float64)
    try:
        for place, mistake in enumerate(exercise.mistakes):
            answer = answer_to(exercise.name, place)
            if "expected" not in answer:
                continue
            scope = {"torch": torch, exercise.name: exercise.solution, "inf": torch.inf}
            found, expected = eval(answer["call"], scope), eval(answer["expected"], scope)
            assert judged_the_same(found, expected)
            scope[exercise.name] = exercise.variant(mistake)
            assert not judged_the_same(eval(answer["call"], scope), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def judged_the_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(judged_the_same, found, expected))
    if not isinstance(expected, torch.Tensor):
        return bool(found == expected)
    if found.shape != expected.shape:
        return False
    return torch.allclose(found.double(), expected.double(), rtol=1e-5, atol=1e-6, equal_nan=False)


@of_all
def test_hints_are_words_and_no_code(exercise: Exercise) -> None:
    assert 1 <= len(exercise.hints) <= 3
    for line in exercise.source.splitlines()[1:]:
        code = line.split("#")[0].strip()
        assert all(code not in hint for hint in exercise.hints if len(code) > 8)
    assert all("torch." not in hint for hint in exercise.hints)


def test_two_exercises_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One would hide the other."""
    module = import_module("llmref.practice.exercises.norm.rms_norm")
    monkeypatch.setattr(module, "EXERCISES", (*module.EXERCISES, EXERCISES[0]))
    message = f"the exercise {EXERCISES[0].name} is of {EXERCISES[0].topic}, and of"
    with pytest.raises(ValueError, match=message):
        exercises.__wrapped__()


def test_every_function_by_hand_that_is_an_exercise_is_judged_by_its_own_topic() -> None:
    for it in EXERCISES:
        path = ROOT / "llmref" / "practice" / "by_hand" / f"{it.topic}.py"
        names = [
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert it.name in names
        assert re.fullmatch(r"[a-z0-9_]+", it.name)
        assert it.level in (1, 2, 3)


@of_all
def test_a_solution_that_is_float32_inside_is_right(exercise: Exercise) -> None:
    """As in most libraries: what comes in is put into float32, and the result put back."""
    answer = judge_here(
        exercise,
        lambda *given: cast(exercise.solution(*as_dtype(given, torch.float32)), torch.float64),
    )
    assert answer["outcome"] == "right", answer


def cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(cast(it, dtype) for it in value)
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(dtype) if is_float else value
