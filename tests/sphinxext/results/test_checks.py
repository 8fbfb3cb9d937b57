"""What counts as a check: what has passed, made by a function of verify, and seen on the page."""

from collections.abc import Callable

import pytest

from tests.small_site import Built, Site

PAGE = """# One

:::{{prf:lemma}} One
:label: one-{number}
One is one.
:::

:::{{prf:proof}}
Clear.
:::

```{{code-cell}} python
from llmref import verify
def check(value):
    return verify.exact("one-{number}", [value], [1], wrong={{"two": [2]}}, note="one case")
```

```{{code-cell}} python
check(1)
```

```{{code-cell}} python
{cell}
```
"""
BY_HAND = """from llmref.records import MIME_TYPE
display({MIME_TYPE: {**check(1).record(), "figure": "in all of them"}}, raw=True)"""
SEEN = ["1 + 1", "check(1)", "x = check(1)\nx", ":tags: [raises-exception]\n1 / 0"]
REFUSED = [
    ("check(1)\ncheck(1)", "a check of one-{} is not shown, so it does not count"),
    ("_ = check(1)", "a check of one-{} is not shown"),
    ("check(1);", "a check of one-{} is not shown"),
    ("check(3)", "cell 3 raised CheckFailedError"),
    (":tags: [raises-exception]\ncheck(3)", "cell 3 raised CheckFailedError"),
    (BY_HAND, "a record that no check has made"),
]


def build(site: Site, cells: list[str]) -> Built:
    site.configure("llmref_preload = ('torch', 'sympy')")
    site.write("index.md", "# Index\n\n```{toctree}\n:glob:\n\npage*\n```\n")
    for number, cell in enumerate(cells):
        site.write(f"page{number}.md", PAGE.format(number=number, cell=cell), executed=True)
    return site.build()


@pytest.fixture(scope="module")
def refused(module_site: Callable[[], Site]) -> Built:
    built = build(module_site(), [cell for cell, _ in REFUSED])
    assert built.code == 1
    return built


def test_what_is_seen_counts(site: Site) -> None:
    built = build(site, SEEN)
    assert (built.code, built.warnings) == (0, "")


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[cell for cell, _ in REFUSED])
def test_what_failed_or_is_not_seen_or_was_written_by_hand_stops_the_build(
    refused: Built, number: int
) -> None:
    message = REFUSED[number][1].format(number)
    lines = [line for line in refused.warnings.splitlines() if f"page{number}.md:" in line]
    assert any(message in line for line in lines), refused.warnings
