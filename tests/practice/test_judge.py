"""The judge with functions that are wrong in every way but one: each gets a plain answer."""

import os
import pdb
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmref.practice import inputs, judge
from llmref.practice.exercises import exercise
from llmref.practice.judging import judge_here
from llmref.practice.submission import judge_file

forked = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="processes are not forked")


def good(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def test_a_right_function_is_right_and_told_how_sure() -> None:
    verdict = judge("rms_norm", good)
    assert verdict.outcome == "right"
    assert verdict.inputs == 7
    assert verdict.error < 1e-12
    assert str(verdict).startswith(
        "right: rms_norm: 7 inputs in float64 and float32, largest error"
    )
    assert "law: Each row is normalised by itself" in str(verdict)


def test_a_lambda_and_a_closure_may_be_judged() -> None:
    shift = 0.0
    assert judge("rms_norm", lambda x, w, eps: good(x, w, eps) + shift).outcome == "right"


def test_a_wrong_function_gets_law_counterexample_mistake_and_link() -> None:
    verdict = judge("rms_norm", lambda x, w, eps: x / (x.norm(dim=-1, keepdim=True) + 1e-300) * w)
    assert verdict.outcome == "wrong"
    assert verdict.counterexample == (
        "rms_norm(torch.tensor([1., 7.]), torch.tensor([1., 1.]), 0.0)\n"
        "    should give torch.tensor([0.2, 1.4])"
    )
    assert verdict.link == "https://llmref.github.io/llmref/norm/rms_norm.html#norm-rms"


def test_a_known_mistake_is_named_with_its_reason() -> None:
    verdict = judge(
        "rms_norm", lambda x, w, eps: w * x / (x.square().mean(-1, keepdim=True).sqrt() + eps)
    )
    assert verdict.mistake == "'eps outside the root'"
    assert verdict.why == "It is added to the mean of the squares, before the root."


def test_another_convention_is_no_mistake() -> None:
    verdict = judge("rms_norm", lambda x, w, eps: good(x, 1 + w, eps))
    assert verdict.outcome == "convention"
    assert "another convention: rms_norm is right by this one: gains stored as 1 + w" in str(
        verdict
    )
    assert "Gemma" in verdict.why


def raises(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return rows[len(rows) + 7]


def changes(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    weight += 1
    return good(x, weight - 1, eps)


def cache_in_place(q: Tensor, k: Tensor, v: Tensor, cache: tuple[Tensor, Tensor] | None) -> object:
    if cache is not None:
        cache[0].mul_(2)
    return exercise("kv_cache_step").solution(q, k, v, cache)


def test_a_tensor_within_a_pair_may_not_be_changed_either() -> None:
    verdict = judge("kv_cache_step", cache_in_place)
    assert verdict.problem == "it changes its argument cache; work on a copy"


def test_the_shapes_of_a_long_input_are_told_also_within_a_pair() -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor, cache: tuple[Tensor, Tensor] | None) -> object:
        return exercise("kv_cache_step").solution(q, k, v, cache) if q.shape[0] == 1 else q

    assert judge("kv_cache_step", wrong).call == (
        'kv_cache_step(*inputs("kv_cache_step")[9])  # '
        "(2, 3, 1, 4), (2, 3, 1, 4), (2, 3, 1, 4), ((2, 3, 5, 4), (2, 3, 5, 4))"
    )


def test_a_function_that_returns_too_little_breaks_the_definition_and_no_law() -> None:
    verdict = judge("kv_cache_step", lambda q, k, v, cache: q)
    assert verdict.problem == "it returns a Tensor, not 2 values"
    assert verdict.law == "the definition"
    assert verdict.result == exercise("kv_cache_step").definition


def turned(x: Tensor, positions: Tensor, base: float, interleaved: bool = False) -> Tensor:
    half = x.shape[-1] // 2
    angles = positions.float()[:, None] / base ** (torch.arange(half).float() / half)
    u, v = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    parts = u * angles.cos() - v * angles.sin(), u * angles.sin() + v * angles.cos()
    return torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)


def test_angles_in_float32_are_right_and_their_convention_is_found() -> None:
    assert judge("rope", turned).outcome == "right"
    verdict = judge("rope", lambda x, positions, base: turned(x, positions, base, True))
    assert verdict.convention == "the interleaved layout"


def test_judging_leaves_the_default_precision_as_it_is() -> None:
    def by_default(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        assert torch.get_default_dtype() == x.dtype
        return good(x, weight, eps)

    assert judge_here(exercise("rms_norm"), by_default)["outcome"] == "right"
    assert judge_here(exercise("rms_norm"), lambda x, w, eps: x)["outcome"] == "wrong"
    assert torch.get_default_dtype() == torch.float32


def test_laws_are_tried_on_functions_that_return_arrays_too() -> None:
    verdict = judge("rms_norm", lambda x, w, eps: (w * x).numpy())
    assert verdict.law == "With eps = 0 a row and four times the row give the same."


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda x, w: x, "it cannot be called as rms_norm(x, weight, eps): "),
        (lambda x, w, eps: None, "it returns nothing (None), not a Tensor"),
        (lambda x, w, eps: "one", "it returns a str, not a Tensor"),
        (lambda x, w, eps: [good(x, w, eps)] * 2, "it returns 2 values, not a Tensor"),
        (lambda x, w, eps: good(x, w, eps)[..., :0], "the shape of the result is (0,), not (1,)"),
        (lambda x, w, eps: good(x, w, eps) * torch.nan, "it is not a number where it should be 1"),
        (raises, "it raises IndexError: index 8 is out of bounds"),
        (changes, "it changes its argument weight; work on a copy"),
        (lambda x, w, eps: sys.exit(3), "it raises SystemExit: 3"),
        (3, "rms_norm must be a function, not a int"),
        (lambda x, w, eps: good(x.float(), w.float(), eps) * (1 + 1e-5), "it is torch.tensor"),
    ],
)
def test_each_bad_function_gets_a_plain_answer(function: Any, problem: str) -> None:
    verdict = judge("rms_norm", function)
    assert verdict.outcome == "wrong"
    assert verdict.problem.startswith(problem)


def test_an_exception_is_shown_at_the_line_of_the_reader() -> None:
    verdict = judge("rms_norm", raises)
    line = raises.__code__.co_firstlineno + 2
    assert verdict.problem.endswith(f"in line {line}: return rows[len(rows) + 7]")


@forked
def test_an_endless_loop_is_stopped_and_what_it_printed_is_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def loops(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        print("begun")
        while True:
            pass

    verdict = judge("rms_norm", loops, seconds=1)
    assert re.fullmatch(
        r"it did not finish in 1 s, in line \d+: (while True:|pass)", verdict.problem
    )
    assert verdict.call == "rms_norm(torch.tensor([3.]), torch.tensor([1.]), 0.0)"
    assert verdict.printed == "begun"


@forked
def test_nothing_that_a_function_does_stays(tmp_path: Path) -> None:
    def meddles(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        torch.set_default_dtype(torch.float16)
        os.environ["LLMREF_MEDDLED"] = "1"
        return good(x, weight, eps)

    assert judge("rms_norm", meddles).outcome == "right"
    assert torch.get_default_dtype() == torch.float32
    assert "LLMREF_MEDDLED" not in os.environ


@forked
def test_a_function_that_ends_the_process_is_told_so() -> None:
    verdict = judge("rms_norm", lambda x, w, eps: os._exit(1))
    assert verdict.problem == "your code ended the process it ran in"


def test_an_unknown_exercise_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="no exercise 'rmsnorm'; is it rms_norm"):
        judge("rmsnorm", good)


def test_the_notebook_shows_it_as_a_table_and_escapes_what_it_shows() -> None:
    def wrong(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        raise ValueError("<b>")

    shown = judge("rms_norm", wrong)._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "margin:0'>rms_norm(torch.tensor([3.])" in shown


def test_the_notebook_links_the_law_to_its_proof() -> None:
    shown = judge("softmax", torch.exp)._repr_html_()
    address = "https://llmref.github.io/llmref/functional/softmax.html#softmax-stable"
    assert f'Large scores overflow nothing. (<a href="{address}">softmax-stable</a>)' in shown


FILES: dict[str, tuple[str, str]] = {
    "no function": ("x = 1\n", "defines no function rms_norm"),
    "a syntax error": ("def rms_norm(x, weight, eps:\n    return x\n", "in line 1 of"),
    "an import that fails": (
        "import nothing_of_this_name\n",
        "raises ModuleNotFoundError: No module named 'nothing_of_this_name', in line 1: import",
    ),
    "an error on the way": (
        "a = 1\nb = a / 0\n",
        "raises ZeroDivisionError: division by zero, in line 2: b = a / 0",
    ),
    "a blank that is not filled": (
        "def rms_norm(x, weight, eps):\n    raise NotImplementedError('write it here')\n",
        "it raises NotImplementedError: write it here, in line 2: raise NotImplementedError",
    ),
    "an end": ("import sys\nsys.exit()\n", "raises SystemExit, in line 2: sys.exit()"),
}


@pytest.mark.parametrize("kind", FILES)
def test_each_bad_file_gets_a_plain_answer(tmp_path: Path, kind: str) -> None:
    text, problem = FILES[kind]
    path = tmp_path / "rms_norm.py"
    path.write_text(text, encoding="utf-8")
    verdict = judge_file(exercise("rms_norm"), path, seconds=20)
    assert verdict is not None
    assert verdict.outcome == "wrong"
    assert problem in verdict.problem


def test_a_file_that_is_no_text_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "rms_norm.py"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is no Python text" in str(judge_file(exercise("rms_norm"), path, seconds=20))


def test_a_message_never_shows_the_solution() -> None:
    lines = [line.split("#")[0].strip() for line in exercise("rms_norm").source.splitlines()]
    functions: list[Callable[..., Any]] = [raises, changes, lambda x, w, eps: x]
    for function in functions:
        said = str(judge("rms_norm", function))
        assert not any(line in said for line in lines[1:])


def test_what_a_function_creates_without_a_dtype_costs_no_precision() -> None:
    def with_buffer(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = torch.zeros(x.shape)
        out += good(x, weight, eps) * torch.tensor(0.1)
        return out / torch.tensor(0.1)

    assert judge("rms_norm", with_buffer).error < 1e-12
    assert torch.get_default_dtype() == torch.float32


def test_what_the_shown_call_prints_stands_below_it_and_nothing_else_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def loud(x: Tensor) -> Tensor:
        print("seen", tuple(x.shape))
        return x.softmax(0)

    verdict = judge("softmax", loud)
    assert verdict.mistake == "'normalised over the first axis'"
    assert verdict.printed == "seen (2, 2)"
    assert "\nprinted: seen (2, 2)\n" in str(verdict)
    assert judge("softmax", lambda x: (print("first"), x.softmax(-1))[1]).printed == "first"
    assert capsys.readouterr().out == ""


def test_a_verdict_is_true_only_if_it_is_right() -> None:
    assert judge("rms_norm", good)
    assert not judge("rms_norm", lambda x, w, eps: x)


def test_the_name_comes_first_and_the_time_is_positive() -> None:
    with pytest.raises(TypeError, match="the name comes first, got function"):
        judge(good, "rms_norm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be positive, got -3 s"):
        judge("rms_norm", good, seconds=-3)


def test_of_many_entries_the_first_that_is_off_is_told_and_the_input_can_be_had_again() -> None:
    def first_batch_only(x: Tensor, *others: Any) -> Tensor:
        out = exercise("multi_head").solution(x, *others)
        return out[:1].expand_as(out)

    verdict = judge("multi_head", first_batch_only)
    found = re.fullmatch(
        r"entry \[(\d+), (\d+), (\d+)\] is (\S+), not (\S+); \d+ of \d+ entries are off",
        verdict.problem,
    )
    assert found
    assert verdict.call.startswith('multi_head(*inputs("multi_head")[')
    given = inputs("multi_head")[int(verdict.call.split("[")[1].split("]")[0])]
    place = tuple(map(int, found.groups()[:3]))
    right = exercise("multi_head").solution(*given)
    assert float(right[place]) == pytest.approx(float(found[5]), rel=1e-5)
    assert float(first_batch_only(*given)[place]) == pytest.approx(float(found[4]), rel=1e-5)


def test_two_tensors_are_not_taken_for_one() -> None:
    two = judge("rope", lambda x, positions, base: (positions.cos(), positions.sin()))
    assert two.problem == "it returns 2 values, not a Tensor"
    odd = judge("rms_norm", lambda x, w, eps: torch.complex(x, x))
    assert odd.problem == "it returns complex numbers, not a Tensor"


def test_ids_are_integers() -> None:
    def floats(text: str, merges: Any) -> list[float]:
        return [float(it) for it in exercise("bpe_encode").solution(text, merges)]

    assert re.fullmatch(r"entry 1 is \d+\.0, not \d+", judge("bpe_encode", floats).problem)


def test_randomness_and_state_are_told() -> None:
    calls: list[int] = []

    def counts(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        calls.append(1)
        return good(x, weight, eps) * (2 if len(calls) == 4 else 1)

    for function in (counts, lambda x, w, eps: torch.rand_like(x)):
        assert judge("rms_norm", function).problem.startswith("two calls with the same arguments")


def test_a_right_function_gets_remarks_on_what_is_not_judged() -> None:
    def remarks(function: Any) -> str:
        verdict = judge("rms_norm", function)
        assert verdict.outcome == "right"
        return " ".join(verdict.remarks)

    assert remarks(good) == ""
    assert "no gradient passes" in remarks(lambda x, w, eps: good(x.detach(), w, eps).detach())
    half = remarks(lambda x, w, eps: good(x.detach(), w, eps))
    assert "its gradient in x is not: a part of it is detached" in half
    wide = remarks(lambda x, w, eps: good(x.double(), w.double(), eps))
    assert "for float32 arguments its result is float64" in wide

    def by_default(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ones = torch.ones(x.shape[-1], x.shape[-1]) / x.shape[-1]
        return weight * x / (x.square() @ ones + eps).sqrt()

    assert "only where torch's default dtype is that of x: else it raises" in remarks(by_default)


@forked
def test_a_debugger_and_a_crash_are_told() -> None:
    def stops(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        pdb.Pdb().set_trace()  # as breakpoint() does, for which pytest has its own
        return x

    def crashes(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return x

    assert judge("rms_norm", stops).problem.startswith("breakpoint() does not work here")
    said = judge("rms_norm", crashes).problem
    assert said == "your code ended the process it ran in (killed)"


def test_a_file_that_misspells_the_name_is_told_what_it_defines(tmp_path: Path) -> None:
    path = tmp_path / "multi_head.py"
    path.write_text("def multihead(x):\n    return x\n", encoding="utf-8")
    verdict = judge_file(exercise("multi_head"), path, seconds=20)
    assert verdict is not None
    assert verdict.problem.endswith("defines no function multi_head; it defines multihead")
    path.write_text("class multi_head:\n    pass\n", encoding="utf-8")
    verdict = judge_file(exercise("multi_head"), path, seconds=20)
    assert verdict is not None
    assert verdict.problem.startswith("multi_head is a class; the task asks for multi_head(x, wq")


@forked
def test_a_loop_at_the_top_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rms_norm.py"
    path.write_text("x = 1\nwhile True:\n    x += 1\n", encoding="utf-8")
    verdict = judge_file(exercise("rms_norm"), path, seconds=1)
    assert verdict is not None
    assert re.search(r"did not finish in 1 s, in line [23]: ", verdict.problem)


@forked
def test_ctrl_c_that_reaches_the_process_first_ends_the_judge_too() -> None:
    def interrupted(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return x

    with pytest.raises(KeyboardInterrupt):
        judge("rms_norm", interrupted)
