"""What counts as a check: what has passed, made by a function of verify, and seen on the page."""

import pytest

from tests.small_site import Site

PAGE = """# One

:::{prf:lemma} One
:label: one-two
One is one.
:::

:::{prf:proof}
Clear.
:::

```{code-cell} python
from llmref import verify
def check(value):
    return verify.exact("one-two", [value], [1], wrong={"two": [2]}, note="one case")
```

```{code-cell} python
check(1)
```
"""
BY_HAND = """from llmref.records import MIME_TYPE
display({MIME_TYPE: {**check(1).record(), "figure": "in all of them"}}, raw=True)"""


@pytest.mark.parametrize(
    "cell", ["1 + 1", "check(1)", "x = check(1)\nx", ":tags: [raises-exception]\n1 / 0"]
)
def test_what_is_seen_counts(site: Site, cell: str) -> None:
    site.write("index.md", f"{PAGE}\n```{{code-cell}} python\n{cell}\n```\n", executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")


@pytest.mark.parametrize(
    ("cell", "refused"),
    [
        ("check(1)\ncheck(1)", "a check of one-two is not shown, so it does not count"),
        ("_ = check(1)", "a check of one-two is not shown"),
        ("check(1);", "a check of one-two is not shown"),
        ("check(3)", "cell 3 raised CheckFailedError"),
        (":tags: [raises-exception]\ncheck(3)", "cell 3 raised CheckFailedError"),
        (BY_HAND, "a record that no check has made"),
    ],
)
def test_what_failed_or_is_not_seen_or_was_written_by_hand_stops_the_build(
    site: Site, cell: str, refused: str
) -> None:
    site.write("index.md", f"{PAGE}\n```{{code-cell}} python\n{cell}\n```\n", executed=True)
    built = site.build()
    assert built.code == 1
    assert refused in built.warnings
