"""What the site shows of the package: the source of its functions.

source: a function as it stands in its file. Nothing here imports a formula: torch takes seconds.
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Set up the directive."""
    app.setup_extension(f"{__name__}.source")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
