"""Results with permanent ids, the checks that confirm them, and what the site says of both.

data, nodes: what a result is, and how it looks. directives, folding: what authors write. checks:
what a cell returned. domain: all results, and what a strict build refuses. reports, ledger,
agreement, with tables and graph: what the build writes into pages.
Leaves out: how cells run (execution), which pages go stale (incremental).
"""

import os

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from llmref.hosting.citation import read_work
from llmref.sphinxext.results.directives import ReportDirective
from llmref.sphinxext.results.domain import ResultsDomain
from llmref.sphinxext.results.folding import FoldDirective, FoldSections
from llmref.sphinxext.results.nodes import add_nodes
from llmref.sphinxext.results.reports import WRITERS, WriteReports


def tell_kernels_the_ids(app: Sphinx) -> None:
    """Tell the checks in the kernels which ids are published."""
    if app.config.llmref_result_ids:
        os.environ["LLMREF_RESULT_IDS"] = str(app.config.llmref_result_ids)
    else:
        os.environ.pop("LLMREF_RESULT_IDS", None)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the domain, the directives and the reports."""
    app.add_config_value("llmref_citation", "", "env", types=(str,))
    app.add_config_value("llmref_result_ids", "", "env", types=(str,))
    # A citation holds the address, so at another one pages are read again, not only written.
    app.add_config_value("llmref_cited_at", lambda config: config.html_baseurl, "env", types=(str,))
    app.add_domain(ResultsDomain)
    add_nodes(app)
    app.add_directive("fold", FoldDirective)
    for report in WRITERS:
        app.add_directive(report, ReportDirective)
    WriteReports.register(app)
    app.add_post_transform(FoldSections)
    app.connect("builder-inited", tell_kernels_the_ids)
    app.connect("builder-inited", lambda app: read_work.cache_clear())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
