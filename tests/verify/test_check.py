"""The object that a passed check returns, and the ids that it may name."""

import json
from pathlib import Path

import pytest
import sympy as sp
import torch

from llmref import verify
from llmref.records import CHECK_ERRORS, MIME_TYPE, seal
from tests.verify.schema import require_documented

NOTE = "one value worked by hand"

x = sp.Symbol("x", real=True)


def passed() -> verify.Check:
    return verify.identity(
        "square-sign", (-x) ** 2, x**2, wrong={"a <b> sign": -(x**2)}, note="real x"
    )


def test_the_record_is_plain_json_and_says_everything() -> None:
    record = passed()._repr_mimebundle_()[MIME_TYPE]
    assert json.loads(json.dumps(record)) == record
    assert record.pop("seal")
    assert record["result"] == "square-sign"
    assert record["kind"] == "identity"
    assert record["note"] == "real x"
    assert set(record["rejected"]) == {"a <b> sign"}


def test_html_shows_the_equation_and_the_mistakes_and_escapes_them() -> None:
    shown = passed()._repr_html_()
    assert "square-sign" in shown
    assert "$$x^{2} = x^{2}$$" in shown
    assert "a &lt;b&gt; sign" in shown
    assert "real x" in shown


def test_latex_is_one_formula_and_absent_where_numbers_were_compared() -> None:
    assert passed()._repr_latex_() == r"$\displaystyle x^{2} = x^{2}$"
    numbers = verify.exact("one-two", [1], [1], wrong={"two": [2]}, note=NOTE)
    assert numbers._repr_latex_() is None
    assert "text/latex" not in numbers._repr_mimebundle_()


def test_text_shows_it_in_a_terminal() -> None:
    assert repr(passed()).startswith("square-sign (identity): difference simplifies to 0 [real x]")


def test_no_check_is_made_by_hand() -> None:
    with pytest.raises(TypeError, match="made by the functions of llmref.verify"):
        verify.Check("square-sign", "identity", "nothing", 1, {"w": "x"}, "real x")


def test_every_error_of_a_check_is_known_to_the_site() -> None:
    """With two that the machinery itself raises for a cell."""
    errors = {
        name
        for name, value in vars(verify).items()
        if isinstance(value, type) and issubclass(value, verify.VerificationError)
    }
    assert errors | {"UnseededError", "UnshownCheckError"} == CHECK_ERRORS


def test_a_record_is_sealed_and_another_record_has_another_seal() -> None:
    sealed = passed()._repr_mimebundle_()[MIME_TYPE]
    record = {key: value for key, value in sealed.items() if key != "seal"}
    assert sealed["seal"] == seal(record)
    assert seal({**record, "cases": 2}) != seal(record)


ones = torch.ones(2, dtype=torch.float64)
KINDS = {
    "identity": lambda **o: verify.identity("scope-kind", x, x, wrong={"w": -x}, **o),
    "statement": lambda **o: verify.statement("scope-kind", "a-b=-(b-a)", {"a": x, "b": 2}, **o),
    "exact": lambda **o: verify.exact("scope-kind", [1], [1], wrong={"w": [2]}, **o),
    "numeric": lambda **o: verify.numeric(
        "scope-kind", ones, ones, atol=0.0, wrong={"w": 2 * ones}, **o
    ),
    "monte_carlo": lambda **o: verify.monte_carlo(
        "scope-kind", ones.repeat(15), 1.0, wrong={"w": 2.0}, **o
    ),
    "gradient": lambda **o: verify.gradient(
        "scope-kind", lambda x: x.sum(), ones, ones, wrong={"w": 2 * ones}, **o
    ),
    "bound": lambda **o: verify.bound("scope-kind", ones, ones, wrong={"w": 0 * ones}, **o),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_check_goes_without_its_scope(kind: str) -> None:
    assert KINDS[kind](note=NOTE).note == NOTE
    with pytest.raises(verify.MissingScopeError, match="scope-kind: say in a few words"):
        KINDS[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_of_every_kind_has_the_documented_form(kind: str) -> None:
    require_documented(KINDS[kind](note=NOTE))


@pytest.mark.parametrize("note", ["", " \t\n", "all", "everything ", None, 3])
def test_a_scope_that_says_nothing_is_refused(note: object) -> None:
    with pytest.raises(verify.MissingScopeError, match="note='three outcomes, .* got"):
        KINDS["exact"](note=note)


@pytest.mark.parametrize("result", ["", "Square", "square", "square_sign", "square-", "a--b", 3])
def test_a_malformed_id_is_refused(result: str) -> None:
    with pytest.raises(verify.ResultIdError, match="kebab-case"):
        verify.exact(result, [1], [1], wrong={"two": [2]}, note=NOTE)


def test_while_the_site_is_built_an_unknown_id_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "ids.txt"
    published.write_text("# ids\n\nknown-id 0.1.0\n", encoding="utf-8")
    monkeypatch.setenv("LLMREF_RESULT_IDS", str(published))
    verify.exact("known-id", [1], [1], wrong={"two": [2]}, note=NOTE)
    with pytest.raises(verify.ResultIdError, match="unknown-id: no published result"):
        verify.exact("unknown-id", [1], [1], wrong={"two": [2]}, note=NOTE)
