"""What a reader takes along: each page as Markdown and as a notebook, the wheel, and llms.txt.

parsing: the site's own Markdown parser, which also notes where a role or a link stands. page: a
page in hand, and the addresses that lead back to the site. inline, roles, citing: what stands in a
line. blocks, directives, boxes: what takes lines of its own. writing: what the build itself has
said, from nodes. notebook: cells. files: what is written, and when. listing: llms.txt. wheel: the
package of this very version.
Text that needs no change stays as its author wrote it; the rest is put in its place by line and
column, as the parser found them. A directive or a role that is not listed here is a warning.
Leaves out: what draws (graphs) and what only the site can do (folds, filters, search); options of
directives that only say how something looks; settings of MyST in a page's own front matter.
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Set up what writes."""
    for part in ("files", "listing", "wheel"):
        app.setup_extension(f"{__name__}.{part}")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
