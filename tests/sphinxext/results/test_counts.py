"""What the build counts: named mistakes and turned signs, each apart."""

import pytest

from llmref.sphinxext.results.data import ExecutedCheck
from llmref.sphinxext.results.nodes import rejections
from llmref.sphinxext.results.tables import counts


@pytest.mark.parametrize(
    ("mistakes", "turned", "words"),
    [
        (1, 0, "1 mistake rejected"),
        (1222, 167, "1,222 mistakes and 167 sign flips rejected"),
        (0, 1, "1 sign flip rejected"),
        (0, 0, "0 mistakes rejected"),
    ],
)
def test_signs_are_counted_apart_from_mistakes(mistakes: int, turned: int, words: str) -> None:
    assert rejections(mistakes, turned) == words


def test_counts_add_up_over_checks() -> None:
    records = [{"rejected": {"a": "1", "b": "2"}, "turned": 0}, {"rejected": {}, "turned": 1500}]
    checks = [ExecutedCheck("page", 1, record) for record in records]
    assert counts([], checks) == (
        "0 results, 2 checks executed, 2 mistakes and 1,500 sign flips rejected"
    )
