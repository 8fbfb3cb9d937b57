"""Reports on the whole site: the ledger of results, what rests on what, totals.

Leaves out: the changes of displayed equations that it counts, which `make mutate-pages` tries.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes

from llmref.sphinxext.results.agreement import PAGE, read_agreement
from llmref.sphinxext.results.data import Erratum, ExecutedCheck, Result
from llmref.sphinxext.results.domain import ResultsDomain
from llmref.sphinxext.results.graph import draw
from llmref.sphinxext.results.nodes import count, rejections
from llmref.sphinxext.results.tables import (
    Place,
    counts,
    link_to_page,
    listed,
    page_title,
    ref,
    refs,
    table,
)


def write_totals(place: Place) -> list[nodes.Node]:
    """Count what the whole site has: all of it from what the build has read."""
    domain, stated = place.domain, place.domain.stated()
    written = nodes.paragraph("", f"{counts(stated, domain.checks)}.", classes=["page-status"])
    if defined := sum(result.kind == "definition" for result in stated):
        are = "is a definition, which needs" if defined == 1 else "are definitions, which need"
        written += nodes.Text(f" Of the results, {defined:,} {are} no check.")
    if rows := read_agreement(place.env.srcdir):
        libraries = len({row["library"] for row in rows})
        agree = "library agrees" if libraries == 1 else "libraries agree"
        written += nodes.Text(f" {libraries} {agree} in ")
        written += _link(place, PAGE, count(len(rows), "comparison"))
        written += nodes.Text(".")
    if domain.errata:
        page = min(erratum.docname for erratum in domain.errata)
        lines = count(len(domain.errata), "erratum", "errata")
        written += [nodes.Text(" "), _link(place, page, lines), nodes.Text(" so far.")]
    return [written]


def _link(place: Place, docname: str, text: str) -> nodes.Node:
    return link_to_page(docname, text) if docname in place.env.found_docs else nodes.Text(text)


def _of_checks(place: Place) -> nodes.paragraph:
    """How the checks have compared, and for how many statements they have read the very text."""
    domain = place.domain
    kinds = Counter(check.record["kind"].replace("_", " ") for check in domain.checks)
    told = [f"{number:,} {kind}" for kind, number in sorted(kinds.items(), key=_most_first)]
    displayed = sum(result.equations > 0 for result in domain.results.values())
    read = {c.record["result"] for c in domain.checks if c.record["statement"]}
    text = (
        f"The checks by kind: {', '.join(told) or 'none'}. "
        f"{count(displayed, 'statement')} {'displays' if displayed == 1 else 'display'} an "
        f"equation, and for {count(len(read), 'result')} a check reads that very text: "
        "a sign changed there stops the build."
    )
    return nodes.paragraph("", text)


def _most_first(kind: tuple[str, int]) -> tuple[int, str]:
    return -kind[1], kind[0]


CHANGES = {  # what was measured, and of what it tells how many changes stop the build
    "mutated_equations.json": "in what it displays",
    "mutated_functions.json": "of functions that its checks run",
}
_HEADER = ["Result", "Checks", "Rejected", "Rests on", "Supports", "Since", "Errata"]


def _read_changes(srcdir: str | Path) -> dict[str, list[str]]:
    """For each result how many changes, of equations and of functions, stopped the build."""
    told: dict[str, list[str]] = {}
    for name, words in CHANGES.items():
        path = Path(srcdir) / name
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for id_, (stopped, tried) in known.items():
            told.setdefault(id_, []).append(f"{stopped} of {count(tried, 'change')} {words}")
    return told


def write_ledger(place: Place) -> list[nodes.Node]:
    """List every result, page by page: its checks, what it rests on, and what it supports."""
    domain = place.domain
    written = [
        *write_totals(place),
        _of_checks(place),
        nodes.container(classes=["ledger-filter"]),
    ]
    checks, errata = _by_result(domain)
    changes = _read_changes(place.env.srcdir)
    for docname in sorted({result.docname for result in domain.results.values()}):
        results = [r for r in domain.results.values() if r.docname == docname]
        heading = nodes.title("", "", *page_title(place.env, docname))
        section = nodes.section("", heading, ids=[f"ledger-{docname.replace('/', '-')}"])
        section += _agreed(place, docname)
        rows = [
            _row(place, r, checks.get(r.id, []), errata.get(r.id, []), changes.get(r.id, []))
            for r in results
        ]
        section += table(_HEADER, rows)
        written.append(section)
    return written


def _by_result(
    domain: ResultsDomain,
) -> tuple[dict[str, list[ExecutedCheck]], dict[str, list[Erratum]]]:
    checks: dict[str, list[ExecutedCheck]] = {}
    for check in domain.checks:
        checks.setdefault(check.record["result"], []).append(check)
    errata: dict[str, list[Erratum]] = {}
    for erratum in domain.errata:
        for id_ in erratum.results:
            errata.setdefault(id_, []).append(erratum)
    return checks, errata


def _agreed(place: Place, docname: str) -> list[nodes.Node]:
    """With which libraries the functions of the page agree: a comparison is of no one result."""
    rows = [row for row in read_agreement(place.env.srcdir) if row["topic"] == docname]
    if not rows:
        return []
    libraries = sorted({f"{row['library']} {row['version']}" for row in rows})
    paragraph = nodes.paragraph("", f"Agrees with {listed(libraries)} in ")
    compared = count(len(rows), "comparison")
    paragraph += link_to_page(docname, compared, heading="in-practice")
    paragraph += nodes.Text(".")
    return [paragraph]


def _row(
    place: Place,
    result: Result,
    checks: list[ExecutedCheck],
    errata: list[Erratum],
    changes: list[str],
) -> tuple[list[Any], list[str]]:
    """The cells of a result, and the classes that the filter asks for."""
    title = nodes.paragraph("", "", ref(result.id, result.id), nodes.Text(": "))
    title += nodes.Text(f"{result.title} ({result.kind})")
    shown = [
        nodes.paragraph("", f"{c.record['kind'].replace('_', ' ')}: {c.record['figure']}")
        for c in checks
    ]
    graph = place.graph
    supports = sorted(graph.successors(result.id)) if result.id in graph else []
    cells: list[Any] = [title, shown or nodes.Text("definition"), _rejected(checks, changes)]
    cells += [refs(result.rests_on), refs(supports), nodes.Text(result.since), _mended(errata)]
    kinds = sorted({c.record["kind"] for c in checks})
    classes = [f"group-{result.docname.split('/')[0]}", f"kind-{result.kind}"]
    classes += [f"check-{kind}" for kind in kinds]
    classes += [f"since-{result.since}"] if result.since else []
    return cells, [*classes, *(["errata-mended"] if errata else [])]


def _rejected(checks: list[ExecutedCheck], changes: list[str]) -> list[nodes.Node]:
    """'2 mistakes and 1 sign flip', of all checks of a result; and which changes stop the build."""
    told = []
    if checks:
        mistakes = sum(len(check.record["rejected"]) for check in checks)
        turned = sum(check.record["turned"] for check in checks)
        told.append(rejections(mistakes, turned).removesuffix(" rejected"))
    return [nodes.paragraph("", text) for text in [*told, *changes]]


def _mended(errata: list[Erratum]) -> nodes.Node:
    """'1 mended', which leads to where the errata say what was false."""
    if not errata:
        return nodes.Text("")
    return link_to_page(errata[0].docname, f"{len(errata)} mended", heading=errata[0].section)


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
