"""What the site shows of the package: its public names, and the source of its functions.

public, definitions, entries: what is public, where it is defined, what it says of itself; read
from files, since torch takes seconds to import. signatures, listing: the API's pages. source: a
function as it stands in its file. links: from names to pages and back.
Leaves out: how Sphinx finds a name (its own domain `py`).
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Set up the directives and the links."""
    for part in ("source", "listing", "links"):
        app.setup_extension(f"{__name__}.{part}")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
