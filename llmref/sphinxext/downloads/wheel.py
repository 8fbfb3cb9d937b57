"""Puts the wheel of the package into the site, and says how a notebook installs it.

Leaves out: how it is built (hosting.wheel). It is built again when one of its files has changed.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

from llmref.hosting.wheel import build_wheel, digest, wheel_name
from llmref.sphinxext.execution.store import write_whole
from llmref.sphinxext.single import only_page


def requirement(config: Config) -> str:
    """Return the address of the wheel; '' if the site has none, or no address."""
    if not config.llmref_wheel_of or not config.html_baseurl:
        return ""
    name = wheel_name(config.project, config.release)
    return f"{config.html_baseurl.rstrip('/')}/_static/{name}"


def write_wheel(app: Sphinx, exception: Exception | None) -> None:
    """Build the wheel into the site, unless it is there already."""
    if exception is not None or app.builder.name != "html" or not app.config.llmref_wheel_of:
        return
    if only_page(app):  # which is not published
        return
    root, folder = Path(app.config.llmref_wheel_of), Path(app.outdir) / "_static"
    wheel = folder / wheel_name(app.config.project, app.config.release)
    noted = Path(app.doctreedir) / "wheel.txt"
    made_from = digest(root)
    if wheel.is_file() and noted.is_file() and noted.read_text(encoding="utf-8") == made_from:
        return
    for old in folder.glob(f"{app.config.project}-*.whl"):
        old.unlink()
    build_wheel(root, folder)
    write_whole(noted, made_from)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the event; before the build looks whether all is there."""
    app.setup_extension("llmref.sphinxext.single")
    # The checkout whose wheel stands beside the site.
    app.add_config_value("llmref_wheel_of", "", "html", types=(str,))
    app.connect("build-finished", write_wheel)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
