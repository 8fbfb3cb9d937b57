"""Reports on the whole site: the ledger of results, what rests on what, totals."""

from docutils import nodes

from llmref.sphinxext.results.agreement import read_agreement
from llmref.sphinxext.results.data import ExecutedCheck
from llmref.sphinxext.results.graph import draw
from llmref.sphinxext.results.nodes import count, rejections
from llmref.sphinxext.results.tables import (
    Place,
    counts,
    listed,
    page_title,
    ref,
    refs,
    table,
)


def write_totals(place: Place) -> list[nodes.Node]:
    """Count the results, checks and mistakes of the whole site."""
    text = counts(place.domain.stated(), place.domain.checks)
    return [nodes.paragraph("", f"{text}.", classes=["page-status"])]


def _read_statements(place: Place) -> nodes.paragraph:
    """For how many results the check has read the equation that the statement displays."""
    domain = place.domain
    displayed = sum(result.equations > 0 for result in domain.results.values())
    read = {c.record["result"] for c in domain.checks if c.record["statement"]}
    text = (
        f"{count(displayed, 'statement')} {'displays' if displayed == 1 else 'display'} an "
        f"equation, and for {count(len(read), 'result')} a check reads that very text: "
        "a sign changed there stops the build."
    )
    return nodes.paragraph("", text)


def write_ledger(place: Place) -> list[nodes.Node]:
    """List every result, page by page: its checks, what it rests on, and what it supports."""
    domain = place.domain
    graph = place.graph
    agreed: dict[str, set[str]] = {}
    for row in read_agreement(place.env.srcdir):
        agreed.setdefault(row["topic"], set()).add(f"{row['library']} {row['version']}")
    by_result: dict[str, list[ExecutedCheck]] = {}
    for check in domain.checks:
        by_result.setdefault(check.record["result"], []).append(check)
    written = [
        *write_totals(place),
        _read_statements(place),
        nodes.container(classes=["ledger-filter"]),
    ]
    for docname in sorted({result.docname for result in domain.results.values()}):
        results = [r for r in domain.results.values() if r.docname == docname]
        rows = []
        for result in results:
            checks = by_result.get(result.id, [])
            shown = [
                nodes.paragraph(
                    "",
                    f"{c.record['kind'].replace('_', ' ')}: {c.record['figure']}; "
                    f"{rejections(len(c.record['rejected']), c.record['turned'])}",
                )
                for c in checks
            ]
            title = nodes.paragraph("", "", ref(result.id, result.id), nodes.Text(": "))
            title += nodes.Text(f"{result.title} ({result.kind})")
            kinds = sorted({c.record["kind"] for c in checks})
            classes = [f"kind-{result.kind}", *(f"check-{kind}" for kind in kinds)]
            supports = sorted(graph.successors(result.id)) if result.id in graph else []
            rests = [refs(result.rests_on), refs(supports)]
            cells = [title, shown or nodes.Text("definition"), *rests]
            rows.append((cells, [f"group-{docname.split('/')[0]}", *classes]))
        heading = nodes.title("", "", *page_title(place.env, docname))
        section = nodes.section("", heading, ids=[f"ledger-{docname.replace('/', '-')}"])
        if libraries := agreed.get(docname):
            section += nodes.paragraph("", f"Agrees with {listed(sorted(libraries))}.")
        section += table(["Result", "Checks", "Rests on", "Supports"], rows)
        written.append(section)
    return written


def write_graph(place: Place) -> list[nodes.Node]:
    """Draw the results of a group, or of all groups if no argument names one."""
    group = place.argument
    domain = place.domain
    wanted = {
        result.id
        for result in domain.stated()
        if not group or result.docname.split("/")[0] == group
    }
    graph = place.graph.subgraph(wanted)

    def link(id_: str) -> str:
        page = domain.results[id_].docname
        uri = place.builder.get_relative_uri(place.docname, page)
        return f"{uri}#{id_}"

    alone = sum(not graph.degree(id_) for id_ in graph)
    text = (
        f"{count(len(graph), 'result')}, {count(graph.number_of_edges(), 'edge')}; "
        f"{count(alone, 'result')} without an edge here"
    )
    paragraph = nodes.paragraph("", f"{text}.", classes=["page-status"])
    svg = draw(graph, link, f"What rests on what: {group or 'all results'}")
    picture = nodes.container("", nodes.raw("", svg, format="html"), classes=["graph-scroll"])
    return [paragraph, picture]
