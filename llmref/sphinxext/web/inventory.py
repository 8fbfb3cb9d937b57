"""objects.inv, by which other sites link here: no entry leads nowhere, and equations are in it.

Changes what is listed just before pages are written, so nothing of it is kept for the next build.
Leaves out: results and names of the package, which their own domains list.
"""

from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.util.typing import ExtensionMetadata


def adjust(app: Sphinx, builder: Builder) -> None:
    """Drop the labels of indices that are not written, and add one for each equation."""
    standard = app.env.domains.standard_domain
    absent = set(_unwritten(app))
    for labels in (standard.labels, standard.anonlabels):
        for name in [name for name, place in labels.items() if place[0] in absent]:
            del labels[name]
    for label, (docname, number) in app.env.domains.math_domain.equations.items():
        anchor = nodes.make_id(f"equation-{label}")
        standard.note_hyperlink_target(label, docname, anchor, f"Equation ({number})")


def _unwritten(app: Sphinx) -> Iterator[str]:
    """The pages that Sphinx would make for indices, if the site had any."""
    if not app.config.html_use_index:
        yield "genindex"
    if not app.config.html_domain_indices:
        for domain in app.env.domains.sorted():
            yield from (f"{domain.name}-{index.name}" for index in domain.indices)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the event."""
    app.connect("write-started", adjust)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
