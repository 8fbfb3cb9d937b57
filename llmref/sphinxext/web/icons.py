"""The theme's icons as masks in a small style sheet, in place of three fonts and a large script.

The shapes are GitHub's Octicons, which sphinx-design carries.
"""

import re
from pathlib import Path
from urllib.parse import quote

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata
from sphinx_design.icons import get_octicon_data

from llmref.sphinxext.borrowed import expect_match

# The theme's name of an icon, and that of the octicon shown for it.
ICONS = {
    "angle-left": "chevron-left",
    "angle-right": "chevron-right",
    "arrow-up": "arrow-up",
    "bars": "three-bars",
    "expand": "screen-full",
    "github": "mark-github",
    "lightbulb": "light-bulb",
    "list": "list-unordered",
    "magnifying-glass": "search",
    "moon": "moon",
    "sun": "sun",
    "xmark": "x",
}
# The mode that follows the system has no octicon.
_HALF = (
    '<path d="M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13Zm0 1.25v10.5a5.25 5.25 0 0 0 0-10.5Z"/>'
)
_RULE = """
:is(.fa-solid, .fas, .fab)::before {
  content: "";
  display: inline-block;
  width: 1.1em;
  height: 1.1em;
  vertical-align: -0.15em;
  background: currentcolor;
  -webkit-mask: var(--icon) center / contain no-repeat;
  mask: var(--icon) center / contain no-repeat;
}
/* The theme places what its script replaces by a drawing; that stands before the text. */
.bd-search .fa-solid.fa-magnifying-glass { position: static; }
@media (forced-colors: active) {
  :is(.fa-solid, .fas, .fab)::before { background: CanvasText; forced-color-adjust: none; }
}
"""
_THEME = "styles/pydata-sphinx-theme.css"
# In the theme's style sheet: a rule for each of some two thousand icons, and the fonts of them all.
_THEIRS = re.compile(
    r'(?:\.fa[a-z0-9-]*,?)+\{--fa:"[^"]*"\}|@font-face\{[^}]*fontawesome/webfonts[^}]*\}'
)


def style_sheet() -> str:
    """Return the style sheet that draws the icons."""
    octicons = get_octicon_data()
    shapes = {name: octicons[octicon]["heights"]["16"]["path"] for name, octicon in ICONS.items()}
    shapes["circle-half-stroke"] = _HALF
    lines = [_RULE]
    for name, shape in sorted(shapes.items()):
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{shape}</svg>'
        data = quote(svg.replace('"', "'"), safe=" =:/'")
        lines.append(f'.fa-{name} {{ --icon: url("data:image/svg+xml,{data}"); }}\n')
    return "".join(lines)


def write_style_sheet(app: Sphinx) -> None:
    """Write it where Sphinx finds it for the links in pages."""
    if app.builder.name == "html":
        target = Path(app.outdir) / "_static" / "icons.css"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(style_sheet(), encoding="utf-8")


def trim_theme(app: Sphinx, exception: Exception | None) -> None:
    """Take the theme's own icons out of its style sheet, a third of what a page waits for."""
    path = Path(app.outdir) / "_static" / _THEME
    if exception is None and path.is_file():
        text = path.read_text(encoding="utf-8")
        text = expect_match(_THEIRS, "", text, "pydata_sphinx_theme.icons")
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the style sheet."""
    app.connect("builder-inited", write_style_sheet)
    app.connect("build-finished", trim_theme)
    app.add_css_file("icons.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
