"""The site as one file that Sphinx writes: the EPUB.

Leaves out: the PDF, which is printed from the built site, without Sphinx (hosting.pdf).
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Set up the builder of the EPUB."""
    app.setup_extension(f"{__name__}.epub")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
