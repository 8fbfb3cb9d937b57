"""Sources are found in the file by name, with their true lines."""

from pathlib import Path

import pytest

from llmref.sphinxext.api.definitions import find_definition
from llmref.sphinxext.api.source import find_source, to_read

MODULE = '''"""A module."""

import torch_that_does_not_exist


def plain(x):
    return x


@decorated
@twice
def decorator(x):
    return x


class Layer:
    def forward(self, x):
        return x

    def other(self):
        pass
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "llmref"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "topic.py").write_text(MODULE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("plain", 6, 7),
        ("decorator", 10, 13),
        ("Layer", 16, 21),
        ("Layer.forward", 17, 18),
        ("Layer.other", 20, 21),
    ],
)
def test_lines_include_decorators_and_the_whole_body(
    root: Path, name: str, first: int, last: int
) -> None:
    """The module itself cannot be imported, so it was only read."""
    assert find_source(f"llmref.topic.{name}", root) == (root / "llmref/topic.py", first, last)


def test_a_name_that_does_not_exist_is_named(root: Path) -> None:
    with pytest.raises(LookupError, match=r"topic.py defines no missing \(of llmref.topic.missing"):
        find_source("llmref.topic.missing", root)
    with pytest.raises(LookupError, match="defines no backward"):
        find_source("llmref.topic.Layer.backward", root)
    with pytest.raises(LookupError, match="no module on the way to other.topic.plain"):
        find_source("other.topic.plain", root)


DOCUMENTED = '''
class Layer:
    """A layer.

    Of what it is made.
    """

    def forward(self, id):  # noqa: A002  (the published name)
        """Apply it."""
        l = id  # noqa: E741  # eq. eq-recurrence

        return l  # type: ignore[return-value]

    def alone(self):
        """Has no body besides."""
'''


def test_docstrings_and_remarks_for_linters_are_no_code(root: Path) -> None:
    (root / "llmref" / "more.py").write_text(DOCUMENTED, encoding="utf-8")
    code, documents = to_read(find_definition("llmref.more.Layer", root))
    assert code == (
        "class Layer:\n"
        "    def forward(self, id):\n"
        "        l = id  # eq. eq-recurrence\n"
        "\n"
        "        return l\n"
        "\n"
        "    def alone(self):\n"
        '        """Has no body besides."""'
    )
    assert documents == "A layer.\n\nOf what it is made.\n\nforward: Apply it."


def test_a_method_starts_at_the_left_edge(root: Path) -> None:
    code, documents = to_read(find_definition("llmref.topic.Layer.forward", root))
    assert code == "def forward(self, x):\n    return x"
    assert documents == ""
