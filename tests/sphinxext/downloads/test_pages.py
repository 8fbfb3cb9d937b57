"""A page as Markdown and as a notebook: complete, and nothing in it that only the site reads."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from llmref.sphinxext.downloads.files import _read
from llmref.sphinxext.downloads.notebook import _own_import
from tests.small_site import Built, Site

BASE = "https://example.org/book/"
PAGE = """
    # A topic, by {prf:ref}`other-lemma`

    % a remark for authors

    (somewhere)=
    ## Words

    See {doc}`other`, {doc}`the other <other>`, {ref}`somewhere`, {prf:ref}`that
    <other-lemma>` and [a part](other.md#part), said by {footcite:t}`One2001,Three2003`,
    and others{footcite:p}`Two2002`. In code stays `{prf:ref}` and ``{eq}`a` ``.

    - {eq}`eq-square` in a list,
      with a second line of {math}`x` and H{sub}`2`

    | a | b |
    |---|---|
    | `{eq}` | {eq}`eq-square` and $a\\|b$ |
    | {doc}`other`, not ``{eq}`eq-square` `` | {eq}`eq-square` |

    $$
    a &= b \\\\
    &= c
    $$ (eq-square)

    $$
    d = e
    $$

    :::{prf:definition} Square of {math}`x`
    :label: topic-square
    It is {eq}`eq-square`.
    :::

    :::{prf:lemma} Shown
    :label: topic-shown

    $$
    f = g
    $$
    :::

    :::{prf:proof}
    :fold:
    Then

    $$
    f = g
    $$
    :::

    ```{code-cell} python
    from llmref import verify
    verify.exact("topic-shown", [1], [1], wrong={"two": [2]}, note="the number one")
    ```

    ::::{dropdown} Why {prf:ref}`other-lemma`?
    :::{note}
    Because of it.
    :::
    ::::

    ::::{tab-set}
    :::{tab-item} First
    One.
    :::
    ::::

    ```{source} llmref.verify.symbolic.vanishes
    ```

    ```{code-block} text
    {prf:ref}`stays`
    ```

    ## References

    ```{footbibliography}
    ```

    ## More

    ```{mistakes}
    ```

    ```{fold} Show it
    ```

    The end.

    ```{code-cell} python
    ---
    mystnb:
      image:
        alt: "A line"
      figure:
        caption: "A line, by {prf:ref}`topic-shown`."
    ---
    from IPython.display import SVG
    SVG('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0 0L9 9"/></svg>')
    ```
"""
OTHER = """
    # Other

    ## Part

    :::{prf:definition} Elsewhere
    :label: other-lemma
    It is.
    :::
"""
BIB = """
@misc{One2001, author = {One, Ann and Nil, Bo}, title = {First_things}, year = 2001, doi = {1/2}}
@misc{Two2002, author = {Two, Bo and others}, title = {Second}, year = 2002, eprint = {2002.1}}
@misc{Three2003, author = {Three, A and B, C and D, E}, title = {Third}, year = 2003}
"""


@pytest.fixture(scope="module")
def built(module_site: Callable[[], Site]) -> Built:
    site = module_site()
    site.configure('extensions += ["sphinxcontrib.bibtex", "sphinx_design"]')
    site.configure(f'bibtex_bibfiles = ["a.bib"]\nhtml_baseurl = "{BASE}"')
    site.configure('release = "1.2"\nmyst_heading_anchors = 2')
    site.write("a.bib", BIB)
    site.write("index.md", "# Home\n\n```{toctree}\n:caption: All\ntopic\nNext <other>\n```\n")
    site.write("topic.md", PAGE, executed=True)
    site.write("other.md", OTHER)
    return site.build()


@pytest.fixture(scope="module")
def text(built: Built) -> str:
    assert (built.code, built.warnings) == (0, "")
    return (built.html / "topic.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "expected",
    [
        f"# A topic, by [Definition 1 of Other]({BASE}other.html#other-lemma)\n\n## Words\n",
        f"See [Other]({BASE}other.html), [the other]({BASE}other.html), "
        f"[Words]({BASE}topic.html#somewhere),\n[that]({BASE}other.html#other-lemma) and "
        f"[a part]({BASE}other.html#part), said by [One and Nil (2001)](https://doi.org/1/2) and "
        "Three et al. (2003),\nand others ([Two et al., 2002](https://arxiv.org/abs/2002.1)). ",
        "In code stays `{prf:ref}` and ``{eq}`a` ``.",
        f"- [(1)]({BASE}topic.html#equation-eq-square) in a list,\n"
        "  with a second line of $x$ and H<sub>2</sub>",
        f"| `{{eq}}` | [(1)]({BASE}topic.html#equation-eq-square) and $a\\|b$ |\n"
        f"| [Other]({BASE}other.html), not ``{{eq}}`eq-square` `` | [(1)]({BASE}topic.html#",
        "$$\n\\begin{split}a &= b \\\\\n&= c\\end{split}\n\\tag{1}\n$$\n\n$$\nd = e\n$$",
        f"**[Definition 1]({BASE}topic.html#topic-square) (Square of $x$).** It is [(1)](",
        f"**[Lemma 2]({BASE}topic.html#topic-shown) (Shown).**\n\n$$\nf = g\n$$",
        "*Proof.* Then\n\n$$\nf = g\n$$\n\n∎",
        "```text\ntopic-shown (exact): equal in ",
        f"**Why [Definition 1 of Other]({BASE}other.html#other-lemma)?**\n\n**Note**\n\n"
        "Because of it.\n\n**First**\n\nOne.",
        "`llmref.verify.symbolic.vanishes` ([llmref/verify/symbolic.py, line ",
        "```python\ndef vanishes(",
        "```text\n{prf:ref}`stays`\n```",
        "- Ann One and Bo Nil. First\\_things. 2001. [doi:1/2](https://doi.org/1/2).\n- A Three,",
        f"| two | [Lemma 2]({BASE}topic.html#topic-shown) | 1 of 1 cases differ",
        "cases differ, first at \\[0] |\n\nThe end.",
        f"*A line, by [Lemma 2]({BASE}topic.html#topic-shown).*",
    ],
)
def test_a_page_is_plain_markdown(text: str, expected: str) -> None:
    assert expected in text


def test_a_picture_is_a_link_with_its_description(built: Built, text: str) -> None:
    (picture,) = re.findall(rf"!\[A line\]\({BASE}(_images/\w+\.svg)\)", text)
    assert (built.html / picture).is_file()


def test_what_only_speaks_to_the_parser_is_gone(text: str) -> None:
    assert not {"(somewhere)=", "remark for authors", ":fold:", "file_format"} & set(text.split())
    assert ":::" not in text
    assert "author" not in text
    assert "`" * 3 + "{" not in text


def test_a_page_that_lists_others_links_to_them(built: Built) -> None:
    text = (built.html / "index.md").read_text(encoding="utf-8")
    assert text == (
        f"# Home\n\n**All**\n\n- [A topic, by other-lemma]({BASE}topic.html)\n"
        f"- [Next]({BASE}other.html)\n"
    )
    assert not (built.html / "index.ipynb").exists()


def test_a_notebook_has_the_same_prose_and_what_the_cells_printed(built: Built, text: str) -> None:
    notebook = nbformat.read(built.html / "topic.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert all(part in text for part in prose)
    assert [len(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"] == [0, 1, 1]
    assert all(
        "mystnb" not in cell.metadata for cell in notebook.cells
    )  # captions are in the prose
    assert "%pip install --quiet matplotlib small==1.2" in notebook.cells[0].source
    assert "# This copy of the site has no address" in notebook.cells[0].source


BAD = """
    # Bad

    Some text, and
    {py:unknown}`a` of it.

    :::{prf:definition} D
    :label: a-b

    ```{strange} thing
    ```
    :::
"""


def test_what_is_not_known_stops_a_strict_build_at_its_line(site: Site) -> None:
    """Sphinx knows these two, so that nobody else warns of them."""
    site.configure(
        "from docutils.parsers.rst import Directive\nfrom docutils import nodes\n"
        "class Strange(Directive):\n    optional_arguments = 1\n    def run(self): return []\n"
        "def role(*_, **__): return [nodes.literal('a', 'a')], []\n"
        "def setup(app):\n    app.add_directive('strange', Strange)\n"
        "    app.add_role('py:unknown', role)"
    )
    site.write("index.md", BAD)
    built = site.build()
    assert built.code != 0
    line = site.line("index.md", "of it")
    assert f"index.md:{line}: WARNING: the downloads know no role py:unknown" in built.warnings
    line = site.line("index.md", "{strange}")
    assert f"index.md:{line + 1}: WARNING: the downloads know no directive str" in built.warnings
    assert built.warnings.count("WARNING") == 2


def test_a_notebook_that_another_build_is_writing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "page.ipynb"
    path.write_text("", encoding="utf-8")
    whole = nbformat.writes(nbformat.v4.new_notebook())
    threading.Timer(0.3, path.write_text, [whole]).start()
    assert _read(path).cells == []


def test_without_an_address_links_are_relative(site: Site) -> None:
    site.write("index.md", "# I\n\n```{toctree}\na/b\n```\n")
    site.write("a/b.md", "# B\n\n{doc}`/index`, {doc}`b`, [B](b.md) and <project:../index.md>\n")
    assert site.build().warnings == ""
    text = (site.root / "_build/html/a/b.md").read_text(encoding="utf-8")
    assert text == "# B\n\n[I](../index.html), [B](b.html), [B](b.html) and [I](../index.html)\n"
    assert Path(site.root / "_build/html/index.md").read_text().endswith("- [B](a/b.html)\n")


def test_a_link_to_a_heading_that_is_not_ascii_leads_to_it(site: Site) -> None:
    """The parser percent-encodes such a link; the site has an id for the heading without it."""
    site.configure("myst_heading_anchors = 2")
    site.write("index.md", "# I\n\n## Decay and ε in Adam\n\n[](#decay-and-ε-in-adam)\n")
    built = site.build()
    assert built.warnings == ""
    text = (built.html / "index.md").read_text(encoding="utf-8")
    assert text.endswith("[Decay and ε in Adam](index.html#decay-and-in-adam)\n")
    assert 'id="decay-and-in-adam"' in built.page("index")


def test_only_the_import_of_a_page_s_own_code_by_hand_is_taken_out() -> None:
    own = _own_import("norm/rms_norm")
    home = "from llmref.practice.by_hand.norm"
    for line in (
        f"{home} import rms_norm as by_hand",
        f"{home}.rms_norm import rms_norm, rms_norm_backward",
        f"{home}.rms_norm import (\n    rms_norm,\n)",
    ):
        assert own.sub("", line) == ""
    for line in (
        f"{home} import layer_norm as theirs",
        f"{home}.layer_norm import layer_norm",
        f"{home} import rms_norm_two as by_hand",
    ):
        assert own.sub("", line) == line
