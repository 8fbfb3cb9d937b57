"""The measure of the displayed equations: which changes it makes, and what stops them."""

import json
from pathlib import Path

import pytest

from llmref.tex import without_layout
from tests import pages
from tests.mutation.equations import Found, as_json, as_table, edits, try_page

PAGE = r"""
:::{prf:theorem} Read
:label: some-read

$$
\begin{aligned}
s&=ab-c\\
s&\le d
\end{aligned}
$$
:::

:::{prf:proof}
$$
x=-y
$$
:::

:::{prf:theorem} Not read
:label: some-unread

$$
u=v-w
$$
:::

```{code-cell} python
from llmref import verify

verify.statement(
    "some-read",
    ["s=ab-c", r"s\le d"],
    {"s": verify.Drawn("k", [5, 2]), "a": verify.Drawn("k", [2, 1]), "b": 3, "c": 1, "d": 5},
    over={"k": range(2)},
    note="two small cases",
)
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "docs" / "group").mkdir(parents=True)
    (tmp_path / "docs" / "group" / "topic.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    return "group/topic"


def changed(text: str) -> set[str]:
    found = without_layout(text)[0]
    return {" ".join((*found[:a], *new, *found[b:])) for a, b, new in edits(found)}


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("a=b-c", {"a = b + c", "a = c - b"}),
        (r"a\le bc", {r"a \ge b c", r"a \le c", r"a \le b"}),
        (r"\frac{x_i}y", {r"\frac y { x _ i }"}),
        (r"x=\frac ab", {r"x = \frac b a"}),
        (r"a=\frac{b+1}c", {r"a = \frac c { b + 1 }", r"a = \frac { b - 1 } c"}),
        ("P_{ij}v_j", {"v _ j", "P _ { i j }"}),
        (r"\log p", set()),
        ("12x", {"1 2"}),
        (r"\bar x^2y", {"y", r"\bar x ^ 2"}),
    ],
)
def test_each_change_is_in_one_place(text: str, changes: set[str]) -> None:
    assert changed(text) >= changes
    if text in ("a=b-c", "12x", r"\log p"):
        assert changed(text) == changes


def test_an_equation_that_a_check_reads_stops_the_build_and_another_does_not(page: str) -> None:
    assert pages.statements(page)[1] == ("some-unread", ["u=v-w\n"])
    found = try_page(page)
    assert (found.killed, found.displays, found.read) == (4, 2, 1)
    assert [line.partition(":")[0] for line in found.alive] == ["some-unread"] * 2
    assert all(line.endswith("(not read)") for line in found.alive)
    assert found.results == {"some-read": [4, 4], "some-unread": [0, 2]}
    assert json.loads(as_json({"group/topic": found})) == found.results


def test_the_table_counts_all_pages_and_says_what_was_measured() -> None:
    found = {
        "a/b": Found(2, 1, results={"one": [2, 2], "other": [0, 1]}),
        "c/d": Found(1, 1, results={"third": [997, 997]}),
    }
    assert as_table(found, "`abc`").splitlines() == [
        "| Page | Displays | Read | Changes | Stopped | Share |",
        "|---|--:|--:|--:|--:|--:|",
        "| all | 3 | 2 | 1000 | 999 | 99 % |",
        "| {doc}`a/b <a/b>` | 2 | 1 | 3 | 2 | 66 % |",
        "| {doc}`c/d <c/d>` | 1 | 1 | 997 | 997 | 100 % |",
        "",
        "By `make mutate-pages WRITE=1`. Measured at commit `abc`.",
    ]
