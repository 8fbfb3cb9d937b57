"""The API's pages: every public name with its signature, its equations, its page and its source."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from llmref.sphinxext.api.public import groups
from tests.small_site import Built, Site, tree

ROOT = Path(__file__).parents[3]

SQUARE = '''
"""What is a square?

Leaves out: cubes.
"""

from typing import Literal

Kind = Literal["a", "b"]


@decorated
def square(x: Tensor, *, kind: Kind = "a") -> Tensor:
    """Multiply `x` with itself, as
    one does.
    A second sentence.

    Shapes: x (...) -> the same
    """
    return x * x  # eq. eq-square and eq-other


def long_one(first_argument: Tensor, second_argument: Tensor, third_argument: int) -> None:
    """Take one line for each parameter."""


def _helper(x):
    """Nothing that anybody sees."""


class Layer(nn.Module):
    """A layer of squares."""

    def __init__(self, n: int, *args: int, bias=True) -> None:
        self.n = n

    @property
    def size(self) -> int:
        """How large it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x  # eq. eq-layer

    def _private(self) -> None: ...
'''
FILES = {
    "package/llmref/__init__.py": "",
    "package/llmref/maths/__init__.py": "",
    "package/llmref/maths/__init__.pyi": (
        "from .parts import Both as Both\nfrom .square import square as square\n"
    ),
    "package/llmref/maths/square.py": SQUARE,
    "package/llmref/maths/_shared.py": "def hidden(): ...",
    "package/llmref/maths/parts/__init__.py": (
        "from llmref.maths.parts.one import Both\n__all__ = ['Both']\n"
    ),
    "package/llmref/maths/parts/one.py": (
        'class Both(NamedTuple):\n    """Two of them."""\n\n    x: int\n    y: int = 0\n'
    ),
    "index.md": (
        "# Small\n\n```{toctree}\napi/index\napi/maths\nmaths/square\n```\n\n"
        "See {py:func}`llmref.maths.square.square`, {py:func}`llmref.maths.long_one`, "
        "{py:mod}`llmref.maths`, {py:meth}`llmref.maths.square.Layer.forward` and "
        "{py:class}`llmref.maths.parts.one.Both`.\n"
    ),
    "api/index.md": "# Overview\n\n```{api}\n```\n",
    "api/maths.md": "# API: Maths\n\n```{api} maths\n```\n",
    "maths/square.md": (
        "# Squares of $x$\n\n$$x^2$$ (eq-square)\n\n$$y$$ (eq-other)\n\n$$z$$ (eq-layer)\n\n"
        "```{source} llmref.maths.square.square\n```\n\n"
        "```{source} llmref.maths.square._helper\n```\n"
    ),
}


def fill(site: Site) -> Site:
    site.use_own_package()
    site.configure("html_domain_indices = False")
    site.configure("llmref_first_edition = ('maths/square',)")
    for name, text in FILES.items():
        site.write(name, text)
    return site


@pytest.fixture(scope="module")
def filled(module_site: Callable[[], Site]) -> Site:
    site = fill(module_site())
    result = site.build()
    assert result.code == 0, result.warnings
    site.keep()
    return site


@pytest.fixture(scope="module")
def built(filled: Site) -> Built:
    """As it was built, wherever others have built it again since."""
    return Built(0, "", "", filled.kept / "_build/html")


def part(page: str, name: str) -> str:
    """The entry of a name, up to the next one."""
    return re.split(r'<dt class="[^"]*sig-object', page.split(f'id="{name}"')[1])[0]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", html).split())


def test_every_public_name_has_an_entry_and_no_other(built: Built) -> None:
    ids = re.findall(r'<dt class="[^"]*sig-object[^>]*id="([^"]*)"', built.page("api/maths"))
    module = "llmref.maths.square"
    members = [f"{module}.Layer", f"{module}.Layer.size", f"{module}.Layer.forward"]
    functions = [f"{module}.square", f"{module}.long_one"]
    assert ids == ["llmref.maths.parts.Both", *functions, *members]


def test_a_signature_stands_as_typed(built: Built) -> None:
    entry = words(part(built.page("api/maths"), "llmref.maths.square.square"))
    assert "square(x: Tensor, *, kind: Kind = &quot;a&quot;) &#x2192; Tensor" in entry
    layer = words(part(built.page("api/maths"), "llmref.maths.square.Layer"))
    assert "class Layer(n: int, *args: int, bias=True)" in layer
    size = words(part(built.page("api/maths"), "llmref.maths.square.Layer.size"))
    assert "property size: int" in size
    both = words(part(built.page("api/maths"), "llmref.maths.parts.Both"))
    assert "class Both(x: int, y: int = 0)" in both


def test_only_a_long_signature_has_a_line_for_each_parameter(built: Built) -> None:
    lines = re.findall(r'class="[^"]*api-lines[^>]*id="([^"]*)"', built.page("api/maths"))
    assert lines == ["llmref.maths.square.long_one"]


def test_the_summary_is_the_first_sentence(built: Built) -> None:
    entry = part(built.page("api/maths"), "llmref.maths.square.square")
    assert "x</span></code> with itself, as one does." in entry
    assert "second sentence" not in entry


def test_an_entry_leads_to_equations_page_and_source(built: Built) -> None:
    entry = part(built.page("api/maths"), "llmref.maths.square.square")
    assert 'href="../maths/square.html#equation-eq-square"' in entry
    assert "Equation (1), equation (2) · Page: Squares of x · Source: square.py, lines" in words(
        entry
    )
    assert 'href="../maths/square.html#source-llmref.maths.square.square"' in entry
    assert 'id="source-llmref.maths.square.square"' in built.page("maths/square")
    line = 1 + SQUARE.splitlines().index("@decorated")
    assert f'href="https://example.org/llmref/maths/square.py#L{line}-L{line + 8}"' in entry


def test_an_equation_of_a_method_is_not_that_of_its_class(built: Built) -> None:
    page = built.page("api/maths")
    assert "Equation (3)" in part(page, "llmref.maths.square.Layer.forward")
    assert "Equation" not in part(page, "llmref.maths.square.Layer")


def test_a_topic_has_its_title_its_question_and_its_page(built: Built) -> None:
    page = built.page("api/maths")
    section = page.split('id="module-llmref.maths.square"')[1]
    assert "<h2>Squares of <" in section
    assert "What is a square?" in section
    assert "Leaves out" not in section
    assert 'href="../maths/square.html"' in section


def test_a_source_that_is_shown_leads_to_its_entry_if_it_has_one(built: Built) -> None:
    page = built.page("maths/square")
    assert 'href="../api/maths.html#llmref.maths.square.square"' in page
    assert "_helper</span></code> " in page
    assert "#llmref.maths.square._helper" not in page


def test_the_overview_links_every_name(built: Built) -> None:
    page = built.page("api/index")
    for name in ("parts.Both", "square.square", "square.long_one", "square.Layer"):
        assert f'href="maths.html#llmref.maths.{name}"' in page


def test_the_inventory_has_every_name_once_for_each_way_to_it(built: Built) -> None:
    inventory = InventoryFile.loads((built.html / "objects.inv").read_bytes(), uri="")
    entry = "api/maths.html#llmref.maths.square.square"
    functions = inventory.data["py:function"]
    assert functions["llmref.maths.square.square"].uri == entry
    assert functions["llmref.maths.long_one"].uri == "api/maths.html#llmref.maths.square.long_one"
    # The short name of a function that goes by its topic's name is the topic's.
    assert "llmref.maths.square" not in functions
    modules = inventory.data["py:module"]
    assert modules["llmref.maths.square"].uri == "api/maths.html#module-llmref.maths.square"
    for kind in ("function", "class", "method", "property"):
        for name, item in inventory.data[f"py:{kind}"].items():
            page, _, anchor = item.uri.partition("#")
            html = (built.html / page).read_text(encoding="utf-8")
            assert f'id="{anchor}"' in html, name


def test_another_site_links_to_a_name(built: Built, site: Site) -> None:
    inventory = built.html / "objects.inv"
    site.configure("extensions += ['sphinx.ext.intersphinx']")
    site.configure(f"intersphinx_mapping = {{'small': ('https://e.org', {str(inventory)!r})}}")
    site.write(
        "index.md",
        "# Other\n\n{py:func}`llmref.maths.square.square` and "
        "{external:py:class}`llmref.maths.Both`\n",
    )
    page = site.build()
    assert page.code == 0, page.warnings
    assert 'href="https://e.org/api/maths.html#llmref.maths.square.square"' in page.page("index")
    assert 'href="https://e.org/api/maths.html#llmref.maths.parts.Both"' in page.page("index")
    text = (page.html / "index.md").read_text(encoding="utf-8")
    square = (
        "[`llmref.maths.square.square`](https://e.org/api/maths.html#llmref.maths.square.square)"
    )
    both = "[`llmref.maths.Both`](https://e.org/api/maths.html#llmref.maths.parts.Both)"
    assert text == f"# Other\n\n{square} and {both}\n"


def test_a_wrong_label_a_wrong_group_and_a_hidden_function_are_named(site: Site) -> None:
    fill(site).configure("llmref_show_all = True")
    site.write("api/none.md", ":orphan:\n\n# None\n\n```{api} none\n```\n")
    path = site.root / "package/llmref/maths/square.py"
    path.write_text(SQUARE.replace("eq-layer", "eq-gone"), encoding="utf-8")
    failed = site.build()
    assert failed.code != 0
    assert "llmref.maths.square.Layer names no equation: eq-gone" in failed.warnings
    assert "there is no group none; there are maths" in failed.warnings
    lines = SQUARE.splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if text.startswith("def long_one("))
    said = "llmref.maths.square.long_one is on no page: show it, or make it private"
    assert re.search(rf"square\.py:{line}: WARNING: {re.escape(said)}", failed.warnings)
    assert "llmref.maths.square.square is on no page" not in failed.warnings


EDITS: dict[str, Callable[[Site], None]] = {
    "a new topic": lambda site: site.write(
        "package/llmref/maths/cube.py", '"""Why cubes?"""\n\n\ndef cube(x): ...\n'
    ),
    "a topic that is gone": lambda site: (site.root / "package/llmref/maths/square.py").unlink(),
    "a new function": lambda site: site.write(
        "package/llmref/maths/square.py", SQUARE + "\n\ndef more(): ...\n"
    ),
    "an inner module": lambda site: site.write(
        "package/llmref/maths/parts/one.py", "class Both:\n    z: int\n"
    ),
    "another title": lambda site: site.write(
        "maths/square.md", FILES["maths/square.md"].replace("Squares", "The squares")
    ),
    "another number": lambda site: site.write(
        "maths/square.md", FILES["maths/square.md"].replace("$$x^2$$", "$$w$$ (eq-w)\n\n$$x^2$$")
    ),
    "one more source": lambda site: site.write(
        "maths/square.md",
        FILES["maths/square.md"] + "\n```{source} llmref.maths.square.Layer.forward\n```\n",
    ),
    "no API any more": lambda site: (site.root / "api/maths.md").unlink(),
}


@pytest.fixture(scope="module")
def without_links(module_site: Callable[[], Site]) -> Site:
    """Links in prose would be dead after some of the edits; those that are written remain."""
    site = fill(module_site())
    site.write("index.md", "# Small\n\n```{toctree}\n:glob:\napi/*\nmaths/square\n```\n")
    (site.root / "api/index.md").unlink()
    first = site.build()
    assert first.code == 0, first.warnings
    site.keep()
    return site


@pytest.mark.parametrize("edit", EDITS)
def test_an_incremental_build_gives_the_files_of_a_clean_one(
    without_links: Site, edit: str
) -> None:
    site = without_links.put_back()
    if edit == "no API any more":
        site.write("index.md", "# Small\n\n```{toctree}\nmaths/square\n```\n")
    if edit == "a topic that is gone":
        site.write("maths/square.md", "# Squares\n")
        site.write("package/llmref/maths/__init__.pyi", "from .parts import Both as Both\n")
    EDITS[edit](site)
    assert site.build().code == 0
    incremental = tree(site.root / "_build/html")
    clean = site.build("-E", "-a")
    assert clean.code == 0, clean.warnings
    after = tree(site.root / "_build/html")
    assert [name for name in incremental if incremental[name] != after.get(name)] == []


def test_every_group_has_its_page_and_the_index_lists_it() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for group in groups(ROOT):
        page = (ROOT / f"docs/api/{group}.md").read_text(encoding="utf-8")
        assert f"```{{api}} {group}\n" in page
        assert f"<api/{group}>\n" in index


def test_a_parameter_with_choices_says_which(built: Built) -> None:
    entry = words(part(built.page("api/maths"), "llmref.maths.square.square"))
    assert "kind is &quot;a&quot; or &quot;b&quot;." in entry


def test_a_build_of_one_page_leaves_no_listing_stale(filled: Site) -> None:
    """A source that the page shows now is a link in the API, which is written by the next build.

    The page is not that of the topic: a listing is read again anyway when that is edited.
    """
    site = filled.put_back()
    shown = "```{source} llmref.maths.square.Layer\n```\n"
    site.write("index.md", FILES["index.md"] + shown)
    assert site.build("-D", "llmref_only=index").code == 0
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert "source-llmref.maths.square.Layer" in part(
        built.page("api/maths"), "llmref.maths.square.Layer"
    )


def test_a_build_of_one_page_reads_no_listing(filled: Site) -> None:
    site = filled.put_back()
    EDITS["another title"](site)
    built = site.build("-D", "llmref_only=maths/square")
    assert "0 added, 1 changed, 0 removed" in built.status
    assert "The squares" in words(site.build().page("api/maths"))


def test_a_build_of_one_page_warns_of_equations_that_a_module_names_now(filled: Site) -> None:
    """The listing, which is not read with the page, knows only those that it named before."""
    site = filled.put_back()
    page, module = FILES["maths/square.md"], "package/llmref/maths/square.py"
    site.write("maths/square.md", page.replace("eq-other", "eq-another"))
    wrong = site.build("-D", "llmref_only=maths/square")
    assert "llmref.maths.square.square names no equation: eq-other" in wrong.warnings
    site.write(module, SQUARE.replace("eq-other", "eq-another"))
    site.write("maths/square.md", page.replace("eq-other", "eq-another") + "\nEdited.\n")
    renamed = site.build("-D", "llmref_only=maths/square")
    assert (renamed.code, renamed.warnings) == (0, "")
    site.write(module, SQUARE.replace("def square", "def _square"))
    site.write("maths/square.md", "# Squares\n\n$$z$$ (eq-layer)\n")
    gone = site.build("-D", "llmref_only=maths/square")
    assert (gone.code, gone.warnings) == (0, "")
