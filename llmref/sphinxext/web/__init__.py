"""What a page is made of in a browser, and what programs read of it.

katex: formulas, typeset at build time by node/. head, icons: what a page loads. accessible: what
keyboards and screen readers need. listings: links in code. look: our style sheet, scripts and
templates. search: what is found, and where. programs, inventory: results.json, the sitemap and
objects.inv.
Leaves out: what results look like (results.nodes); what is taken along (downloads).
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Set up every component; head after those that name the files it sorts out."""
    for component in (
        "accessible",
        "icons",
        "inventory",
        "katex",
        "listings",
        "look",
        "programs",
        "search",
        "head",
    ):
        app.setup_extension(f"{__name__}.{component}")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
