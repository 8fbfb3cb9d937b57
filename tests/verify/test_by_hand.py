"""Code by hand against the library: what passes, and each way to be refused."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmref import verify
from tests.verify.schema import require_documented

nan, inf = math.nan, math.inf
NOTE = "two rows of three numbers"
X = torch.tensor([[1.0, 2.0, 4.0], [0.5, -1.0, 0.0]], dtype=torch.float64)


def as_by_hand(function: Callable[..., Any], name: str = "centred") -> Callable[..., Any]:
    """A function as if it were defined among the code by hand."""
    function.__module__, function.__qualname__ = "llmref.practice.by_hand.norm.layer_norm", name
    function.__name__ = name
    return function


def centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=-1, keepdim=True)


def library(x: Tensor) -> Tensor:
    return x - x.sum(dim=-1, keepdim=True) / x.shape[-1]


def of_rows(x: Tensor) -> Tensor:
    return x - x.mean(dim=0, keepdim=True)


def check(
    function: Callable[..., Any] = centred,
    library: Callable[..., Any] = library,
    inputs: Any = ((X,),),
    wrong: Any = None,
    note: str = NOTE,
    **options: Any,
) -> verify.Check:
    wrong = {"mean over rows": of_rows} if wrong is None else wrong
    return verify.by_hand(
        "hand-centred", function, library, inputs, wrong=wrong, note=note, **options
    )


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centred, "__module__", "llmref.practice.by_hand.norm.layer_norm")


def returns(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def compare(ours: Any, theirs: Any, mistaken: Any = "another kind") -> verify.Check:
    return check(as_by_hand(returns(ours)), returns(theirs), wrong={"w": lambda x: mistaken})


def test_a_check_says_which_function_equals_the_library_and_how_closely() -> None:
    passed = check(inputs=[(X,), (X.float(),)], atol=1e-6)
    assert passed.kind == "by_hand"
    assert passed.function == "llmref.practice.by_hand.norm.layer_norm.centred"
    assert passed.figure.startswith("centred equals llmref on 2 inputs, largest error ")
    assert passed.cases == 2
    assert passed.note == NOTE
    assert passed.record()["function"] == passed.function
    require_documented(passed)
    # Row means 7/3 and -1/6, column means 3/4, 1/2 and 2: furthest apart, by 2 + 1/6, at the end.
    assert passed.rejected == {"mean over rows": "largest error 2.2 on input 1"}


def test_other_kinds_have_no_function() -> None:
    assert verify.exact("hand-other", [1], [1], wrong={"two": [2]}, note=NOTE).function == ""


def test_a_difference_beyond_the_tolerance_fails_with_its_input() -> None:
    off = partial(torch.add, torch.tensor(1e-6))
    inputs = [(torch.zeros(2, dtype=torch.float64),)]
    with pytest.raises(verify.CheckFailedError, match="largest error 1e-06 on input 1, allowed"):
        check(library=off, inputs=inputs)
    loose = check(library=off, inputs=inputs, atol=1e-5, wrong={"far": lambda x: x + 1})
    assert loose.figure == "centred equals llmref on 1 input, largest error 1e-06"


def test_the_second_input_counts_too() -> None:
    def fails_on_float32(x: Tensor) -> Tensor:
        return centred(x) + (x.dtype == torch.float32)

    with pytest.raises(verify.CheckFailedError, match="on input 2"):
        check(as_by_hand(fails_on_float32), inputs=[(X,), (X.float(),)], atol=1e-6)


ALIKE = [
    ((X, [1, "ab"], None), [X.clone(), (1, "ab"), None]),
    ({"a": X, "b": b"x"}, {"b": b"x", "a": X.clone()}),
    ([inf, -inf, 0.5], [inf, -inf, 0.5 + 1e-13]),
    (torch.tensor([inf, -inf]), torch.tensor([inf, -inf])),
    (torch.tensor([1, 2]), torch.tensor([1, 2])),
    (torch.tensor([1 + 2j]), torch.tensor([1 + 2j])),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    (X.clone().requires_grad_(), X),
    (True, True),
    ("ab", "ab"),
]


@pytest.mark.parametrize(("ours", "theirs"), ALIKE)
def test_nested_outputs_are_compared(ours: Any, theirs: Any) -> None:
    assert compare(ours, theirs, mistaken=12345).rejected["w"].startswith("int for ")


DIFFERENT = [
    (X, X[0], r"shape \(2, 3\) for \(3,\)"),
    (X, X.float(), r"torch.float64 for torch.float32"),
    (torch.tensor([1, 2, 3]), torch.tensor([1, 3, 4]), "2 of 3 entries differ"),
    (torch.tensor([1 + 2j]), torch.tensor([1 - 2j]), "largest error 4"),
    (torch.tensor([inf]), torch.tensor([-inf]), "largest error inf"),
    ([X, X], [X], "2 items for 1"),
    ([X, [1, 2]], [X, [1, 3]], "2 for 3"),
    ({"a": 1}, {"b": 1}, r"keys \['a'\] for \['b'\]"),
    ({"a": 1}, {"a": 2}, "1 for 2"),
    (1, True, "int for bool"),
    (1.5, torch.tensor(1.5), "float for Tensor"),
    (0.5, 0.75, "largest error 0.25"),
    ("ab", "a" * 40, r"'ab' for 'a{26}\.\.\."),
    (None, 1, "NoneType for int"),
]


@pytest.mark.parametrize(("ours", "theirs", "seen"), DIFFERENT)
def test_outputs_that_differ_fail_and_are_described(ours: Any, theirs: Any, seen: str) -> None:
    with pytest.raises(verify.CheckFailedError, match=f"hand-centred: {seen} on input 1"):
        compare(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [(nan, 1.0), (1.0, nan), (nan, nan)])
def test_a_nan_on_either_side_is_refused(ours: float, theirs: float) -> None:
    with pytest.raises(verify.NotANumberError, match="one side holds a NaN"):
        compare([ours], [theirs])
    with pytest.raises(verify.NotANumberError, match="one side holds a NaN"):
        compare(torch.tensor([ours]), torch.tensor([theirs]))


@pytest.mark.parametrize("value", [{1}, object(), 1j])
def test_a_value_of_another_type_is_no_output(value: Any) -> None:
    with pytest.raises(
        TypeError, match=f"hand-centred: by_hand compares no {type(value).__name__}"
    ):
        compare(value, value)
    with pytest.raises(TypeError, match="by_hand compares no"):  # no mistake of a reader either
        compare(1, 1, mistaken=value)


@pytest.mark.parametrize("value", [None, [], torch.ones(0), {"a": ()}])
def test_empty_outputs_show_nothing(value: Any) -> None:
    with pytest.raises(verify.ByHandError, match="nothing was compared"):
        compare(value, value)


def test_one_empty_output_among_others_is_an_edge_case() -> None:
    assert (
        check(as_by_hand(lambda s: [*s]), list, [("",), ("ab",)], {"w": lambda s: [*s, ""]}).cases
        == 2
    )


def test_code_from_elsewhere_is_refused() -> None:
    with pytest.raises(
        verify.ByHandError, match=r"defined below llmref.practice.by_hand, got test"
    ):
        check(of_rows)
    nested = as_by_hand(returns(X), "outer.<locals>.inner")
    with pytest.raises(verify.ByHandError, match="defined below llmref.practice.by_hand"):
        check(nested)


def test_a_reader_of_a_notebook_checks_a_function_of_a_cell() -> None:
    mine = as_by_hand(returns(library(X)), "mine")
    mine.__module__ = "__main__"
    assert check(mine).function == "__main__.mine"


def test_a_function_is_not_compared_with_itself() -> None:
    twin = as_by_hand(lambda x: library(x), "twin")
    for other in (centred, twin, partial(twin), partial(partial(centred))):
        with pytest.raises(verify.ByHandError, match="another code than that of llmref.practice"):
            check(library=other)


@pytest.mark.parametrize("inputs", [[], (), X, None])
def test_a_check_needs_inputs(inputs: Any) -> None:
    with pytest.raises(verify.ByHandError, match="give at least one input"):
        check(inputs=inputs)


def test_an_input_is_a_tuple_of_arguments() -> None:
    with pytest.raises(verify.ByHandError, match="each input is a tuple of arguments, got 'ab'"):
        check(inputs=["ab"])


def change_tensor(x: Tensor) -> Tensor:
    return x.sub_(x.mean(dim=-1, keepdim=True))


def change_list(x: list[Any]) -> int:
    x.append(1)
    return 2


def change_item(x: list[Any]) -> int:
    x[0] = 7
    return 2


def change_dict(x: dict[str, Any]) -> int:
    x["a"] = x["a"] + 1
    return 2


def change_keys(x: dict[str, Any]) -> int:
    x["b"] = x.pop("a")
    return 2


CHANGES = [
    (change_tensor, X, library),
    (change_list, [1, 2], returns(2)),
    (change_item, [1, 2], returns(2)),
    (change_dict, {"a": 1}, returns(2)),
    (change_keys, {"a": 1}, returns(2)),
]


@pytest.mark.parametrize(("function", "value", "other"), CHANGES)
def test_code_that_changes_its_arguments_is_refused(
    function: Callable[..., Any], value: Any, other: Callable[..., Any]
) -> None:
    by_hand = as_by_hand(partial(function), "changes")
    with pytest.raises(verify.ByHandError, match=r"changes changes its arguments \(input 1\)"):
        check(by_hand, other, [(value,)], {"w": returns("w")})


def test_each_call_gets_its_own_copy() -> None:
    """The library and the mistakes may change theirs, and the caller's stay as they were."""
    given, rows = X.clone(), [1, 2]
    wrong = {"in place": lambda x, rows: rows.append(3) or x.mul_(2)}
    by_hand = as_by_hand(lambda x, rows: centred(x) * len(rows))
    check(by_hand, lambda x, rows: change_tensor(x) * len(rows), [(given, rows)], wrong)
    assert torch.equal(given, X)
    assert rows == [1, 2]


def test_nan_functions_and_none_may_be_given() -> None:
    holed = torch.tensor([nan, 1.0])
    by_hand = as_by_hand(lambda x, f, eps, none: f(x.nan_to_num(0.0)) + eps)
    wrong = {"no eps": lambda x, f, eps, none: f(x.nan_to_num(0.0))}
    check(
        by_hand,
        lambda x, f, eps, _: f(x.nansum()[None].expand(2) * torch.tensor([0, 1])) + eps,
        [(holed, torch.exp, 1.0, None)],
        wrong,
    )


def test_an_input_whose_change_nobody_could_see_is_refused() -> None:
    with pytest.raises(TypeError, match="by_hand passes no Linear"):
        check(as_by_hand(lambda layer: 1), returns(1), [(nn.Linear(2, 2),)], {"w": returns(2)})


def test_a_mistake_is_rejected_on_the_first_input_where_it_differs() -> None:
    ones = torch.ones(2, 3, dtype=torch.float64)
    assert check(inputs=[(ones,), (X,)]).rejected == {
        "mean over rows": "largest error 2.2 on input 2"
    }


def test_a_mistake_may_raise_or_have_another_shape() -> None:
    wrong = {
        "wrong axis": lambda x: x.mean(dim=5),
        "no keepdim": lambda x: x.mean(dim=-1),
        "a list": lambda x: x.tolist(),
    }
    assert check(wrong=wrong).rejected == {
        "wrong axis": "raises IndexError on input 1",
        "no keepdim": "shape (2,) for (2, 3) on input 1",
        "a list": "list for Tensor on input 1",
    }


def with_nan(x: Tensor) -> Tensor:
    return library(x).where(x != x[0, 0], nan)


def test_a_mistake_that_is_nothing_but_a_nan_is_refused() -> None:
    match = "the wrong variant 'w' is not a number; a NaN is no mistake"
    with pytest.raises(verify.NanOnlyError, match=match):
        check(wrong={"w": with_nan})
    seen = check(wrong={"w": with_nan, "mean over rows": of_rows}, nan={"w"}).rejected
    assert seen["w"] == "not a number"
    with pytest.raises(verify.NanOnlyError, match="give a wrong variant with numbers too"):
        check(wrong={"w": with_nan}, nan={"w"})
    with pytest.raises(verify.NanOnlyError, match="nan names no wrong variant: v"):
        check(nan={"v"})


def test_a_nan_beside_a_wrong_number_does_not_matter() -> None:
    wrong = {"w": lambda x: 2 * with_nan(x)}
    (seen,) = check(wrong=wrong).rejected.values()
    assert seen == "largest error 1.7 on input 1"
    with pytest.raises(verify.NanOnlyError, match="take 'w' out of nan"):
        check(wrong=wrong, nan={"w"})


def test_a_nan_on_one_input_leaves_the_others_to_decide() -> None:
    ones = torch.ones(2, 3, dtype=torch.float64)
    wrong = {"w": lambda x: x / (x - x[..., :1]).abs().amax() if x.std() == 0 else 2 * library(x)}
    assert check(inputs=[(ones * 0,), (X,)], wrong=wrong).rejected == {
        "w": "largest error 1.7 on input 2"
    }


def test_a_mistake_that_makes_no_difference_is_an_error() -> None:
    with pytest.raises(verify.WrongVariantPassedError, match="'twin' passes .* on 1 input"):
        check(wrong={"twin": library})
    with pytest.raises(verify.MissingWrongVariantError):
        check(wrong={})


def test_a_slip_of_the_author_is_no_mistake() -> None:
    with pytest.raises(verify.ByHandError, match="does not run: name 'maen' is not defined"):
        check(wrong={"slip": lambda x: maen(x)})  # type: ignore[name-defined]  # noqa: F821
    with pytest.raises(verify.ByHandError, match="has another signature: missing .* 'y'"):
        check(wrong={"two arguments": lambda x, y: x})
    assert check(wrong={"a function in C": torch.exp}).cases == 1


@pytest.mark.parametrize("atol", [nan, inf, -1.0])
def test_a_tolerance_that_accepts_everything_is_refused(atol: float) -> None:
    with pytest.raises(verify.VerificationError, match="the tolerance must be finite"):
        check(atol=atol)


@pytest.mark.parametrize("note", ["", "  ", "all", "everything ", None, 3])
def test_the_scope_must_be_said(note: Any) -> None:
    with pytest.raises(verify.MissingScopeError, match="say in a few words what was compared"):
        check(note=note)


def test_a_malformed_id_is_refused() -> None:
    with pytest.raises(verify.ResultIdError):
        verify.by_hand("Centred", centred, library, [(X,)], wrong={"w": of_rows}, note=NOTE)
