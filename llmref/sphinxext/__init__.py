"""The site's machinery. Only this package needs Sphinx.

execution: how pages run, and what they depend on. results: results, checks and ledger.
export: the site for programs. source: the source of a function. math: formulas at build time.
head, icons: what a page loads. accessible: what keyboards and screen readers need.
epub, book: the whole site as one file.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # exclusive.py starts without loading Sphinx
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


COMPONENTS = (
    "accessible",
    "epub",
    "execution",
    "export",
    "head",
    "icons",
    "layout",
    "math",
    "results",
    "source",
)


def setup(app: "Sphinx") -> "ExtensionMetadata":
    """Set up every component."""
    # Loaded here, so that the server of kernels can start before all this is.
    for name in COMPONENTS:
        app.setup_extension(f"{__name__}.{name}")
    # Another env_version means that the environment holds other things: all pages are read again.
    return {
        "version": "1",
        "env_version": 4,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
