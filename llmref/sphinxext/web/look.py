"""Our style sheet, our scripts and our templates, beside those of the theme."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

from llmref.hosting.versions import NOTICE

_STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"


def leave_room_for_versions(
    app: Sphinx, pagename: str, _: str, context: dict[str, Any], __: Any
) -> None:
    """Mark where the hosted site says of an old version that it is one."""
    if "body" in context and app.builder.name == "html":
        context["body"] = f"{NOTICE}\n{context['body']}"


def add_static_files(app: Sphinx) -> None:
    """Put our style sheet and script beside the site's own static files."""
    # Not appended: an unset list is the default of every build in the process.
    app.config.html_static_path = [*app.config.html_static_path, str(_STATIC)]


def add_templates(app: Sphinx, config: Config) -> None:
    """Put our templates before the theme's of the same name."""
    # Not appended: an unset list is the default of every build in the process.
    config.templates_path = [*config.templates_path, str(_TEMPLATES)]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register static files and templates."""
    app.connect("builder-inited", add_static_files)
    app.connect("config-inited", add_templates)
    app.connect("html-page-context", leave_room_for_versions)
    app.add_css_file("llmref.css")
    app.add_js_file("llmref.js", loading_method="defer")
    app.add_js_file("preview.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
