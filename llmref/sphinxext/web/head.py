"""The head of a page: what it loads, which is what its reader needs, and what a preview shows."""

import html
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ext import add_global_html_resources
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.borrowed import expect_match

# These are loaded by the pages that hold all the texts beside them.
_FOR = {
    "clipboard.min.js": ('<div class="highlight',),
    "copybutton.js": ('<div class="highlight',),
    "copybutton.css": ('<div class="highlight',),
    "design-tabs.js": ('class="sd-tab-',),
    "katex.min.css": ('class="katex',),
    "mystnb.css": ('class="cell',),
    # What it shows holds formulas, which need the style sheet of the page's own.
    "preview.js": ('class="katex', 'class="reference internal" href="'),
    "sphinx-design.min.css": ("sd-",),
}
_HASH = re.compile(r"\.[0-9a-f]{32,}(?=\.)")
# Read by the scripts that stand in the page itself.
_FIRST = "documentation_options.js"
# In the block of the theme's head that links style sheets: its script for icons, which icons.css
# draws, and the hurried loading of scripts that run when the page has been read.
_THEME_SCRIPTS = re.compile(
    r"\s*(?:<!--[^>]*-->\s*)?(?:<script [^>]*\bsrc=[^>]*></script>|<link rel=\"preload\"[^>]*>)"
)
# The fonts of a formula, by what KaTeX's HTML has for them.
_FONTS = {
    "Main-Regular": r'class="katex',
    "Math-Italic": r"\bmathnormal\b",
    "Main-Bold": r"\bmathbf\b",
    "AMS-Regular": r"\b(?:amsrm|mathbb)\b",
    "Caligraphic-Regular": r"\bmathcal\b",
    "Size1-Regular": r"\b(?:delimsizing size1|delim-size1|small-op)\b",
    "Size2-Regular": r"\b(?:delimsizing size2|large-op)\b",
}
_PRELOAD = """
<script>
  if (location.protocol !== "file:") for (const font of %s) document.head.append(
    Object.assign(document.createElement("link"), {rel: "preload", as: "font", type: "font/woff2",
      crossOrigin: "", href: `%s/KaTeX_${font}.woff2`}));
</script>"""
# What stands on the first screen: some formulas, and all of a table, whose rows share its columns.
_FIRST_FORMULAS = 12
_FORMULA = '<span class="katex">'
_SECTION = re.compile(r'<section (?:[^>]* )?id="([^"]+)"')


def without_scripts(head: str) -> str:
    """Return the theme's head without the scripts that it loads among the style sheets."""
    if "<script" not in head and "preload" not in head:  # another theme
        return head
    return expect_match(_THEME_SCRIPTS, "", head, "pydata_sphinx_theme.scripts")


def lighten(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Leave out what the page has no use for, and let nothing but style sheets hold it up."""
    if app.builder.name != "html":  # a book loads nothing
        return
    body = context.get("body", "")
    for kind in ("css_files", "script_files"):
        context[kind] = [asset for asset in context[kind] if _is_needed(asset, body)]
    if pagename != "search":  # its own scripts do not wait
        context["script_files"] = [_deferred(script) for script in context["script_files"]]
    first = _preloads(body, context["pathto"]) + _first_screen(body)
    context["metatags"] = first + context.get("metatags", "")


def _name(asset: Any) -> str:
    return _HASH.sub("", PurePosixPath(str(asset.filename or "").partition("?")[0]).name)


def _is_needed(asset: Any, body: str) -> bool:
    return all(text in body for text in _FOR.get(_name(asset), ()))


def _deferred(script: Any) -> Any:
    if not script.filename or _name(script) == _FIRST:
        return script
    return type(script)(
        script.filename, priority=script.priority, **{**script.attributes, "defer": "defer"}
    )


def _preloads(body: str, pathto: Any) -> str:
    """A script that asks for the fonts of the first formulas at once, so that nothing moves later.

    Links would do, but from a folder a browser loads no font ahead of time, and calls it an error.
    """
    unfolded = body.partition("<details")[0]  # what is folded needs no font yet
    table, end, _ = unfolded.partition("</table>")
    count = max(_FIRST_FORMULAS, table.count(_FORMULA) if end else 0)
    start = _FORMULA.join(unfolded.split(_FORMULA)[: count + 1])
    fonts = [font for font, marks in _FONTS.items() if re.search(marks, start)]
    if not fonts:
        return ""
    return _PRELOAD % (json.dumps(fonts), pathto("_static/katex/fonts", 1))


def _first_screen(body: str) -> str:
    """A link that has the browser paint nothing before the third section has come.

    Half a table has other columns than a whole one, so what is painted too early moves.
    """
    sections = _SECTION.findall(body)
    if len(sections) < 3:
        return ""
    return f'\n<link rel="expect" blocking="render" href="#{sections[2]}"/>'


def add_preview(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Say in Open Graph's words what a link to the page shows elsewhere."""
    if app.builder.name != "html" or not app.config.html_baseurl:
        return
    base = app.config.html_baseurl.rstrip("/") + "/"
    title = app.env.titles[pagename].astext() if doctree else context.get("title", "Search")
    tags = {
        "og:type": "article" if doctree and pagename != app.config.root_doc else "website",
        "og:site_name": app.config.project,
        "og:title": title,
        "og:description": _description(doctree) or app.config.llmref_description,
        "og:url": f"{base}{pagename}.html",
        "og:image": f"{base}_static/social.png",
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": app.config.llmref_description,
    }
    lines = [
        f'<meta property="{name}" content="{html.escape(value)}"/>'
        for name, value in tags.items()
        if value
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image"/>')
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def _description(doctree: nodes.document | None) -> str:
    for meta in doctree.findall(nodes.meta) if doctree else ():
        if meta.get("name") == "description":
            return str(meta["content"])
    return ""


def copy_cell_styles(app: Sphinx) -> None:
    """Copy myst-nb's style sheet before pages link to it, not after.

    Its address holds a checksum if the file is there: else a clean build differs from the next one.
    """
    if app.builder.name == "html":
        (Path(app.outdir) / "_static").mkdir(parents=True, exist_ok=True)
        add_global_html_resources(app, None)


def _add_filter(app: Sphinx) -> None:
    # templates/layout.html applies it.
    if app.builder.format == "html":
        app.builder.templates.environment.filters["without_scripts"] = without_scripts


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the events; late, when every other extension has named its files."""
    app.connect("html-page-context", lighten, priority=900)
    app.connect("html-page-context", add_preview)
    app.connect("builder-inited", _add_filter)
    app.connect("builder-inited", copy_cell_styles)
    app.add_config_value("llmref_description", "", "html", types=(str,))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
