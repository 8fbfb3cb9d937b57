"""The graph of results: what rests on what, drawn as SVG with real text and links.

An edge leads from a result to one whose proof refers to it, so foundations are on the left.
networkx is imported by the functions: a build in which nothing has changed needs no graph.
"""

import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx

_ROW, _COLUMN, _CHARACTER, _PADDING = 26, 60, 6.7, 8  # pixels


def build_graph(rests_on: Mapping[str, list[str]]) -> "networkx.DiGraph":
    """Return the graph with an edge from each foundation to what rests on it."""
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(sorted(rests_on))
    graph.add_edges_from(
        (foundation, id_)
        for id_ in sorted(rests_on)
        for foundation in rests_on[id_]
        if foundation in rests_on
    )
    return graph


def study_path(graph: "networkx.DiGraph", id_: str) -> list[str]:
    """Return all that the result rests on, however far back, each after its own foundations.

    Nothing if proofs rest on each other.
    """
    import networkx

    above = graph.subgraph(networkx.ancestors(graph, id_))
    try:
        return list(networkx.lexicographical_topological_sort(above))
    except networkx.NetworkXUnfeasible:
        return []


def cycles(graph: "networkx.DiGraph") -> list[list[str]]:
    """Return one circle for each knot of proofs that rest on each other.

    Not all circles: nine proofs that all cite each other have 125,664.
    """
    import networkx

    knots = sorted(map(sorted, networkx.strongly_connected_components(graph)))
    return [
        [start for start, _ in networkx.find_cycle(graph.subgraph(knot))]
        for knot in knots
        if len(knot) > 1 or graph.has_edge(knot[0], knot[0])
    ]


def draw(graph: "networkx.DiGraph", link: Callable[[str], str], title: str) -> str:
    """Return the SVG of all results that have an edge; `link` gives the address of a result.

    An empty text if proofs rest on each other.
    """
    if cycles(graph):
        return ""
    connected = graph.subgraph(id_ for id_ in graph if graph.degree(id_))
    layers = _ordered_layers(connected)
    widths = [max(map(len, layer)) * _CHARACTER + 2 * _PADDING for layer in layers]
    lefts = [sum(widths[:n]) + _COLUMN * n for n in range(len(layers))]
    tallest = max((len(layer) for layer in layers), default=0)
    boxes = {
        id_: (lefts[n], _ROW * (row + (tallest - len(layer)) / 2), widths[n])
        for n, layer in enumerate(layers)
        for row, id_ in enumerate(layer)
    }
    width = lefts[-1] + widths[-1] if layers else 0
    parts = [
        f'<svg class="result-graph" xmlns="http://www.w3.org/2000/svg" role="group" '
        f'aria-label="{html.escape(title)}" width="{width + 4:.0f}" height="{_ROW * tallest + 4}" '
        f'viewBox="-2 -2 {width + 4:.0f} {_ROW * tallest + 4}">'
    ]
    parts += [_edge(boxes[a], boxes[b]) for a, b in sorted(connected.edges)]
    parts += [_node(id_, box, link(id_)) for id_, box in sorted(boxes.items())]
    return "\n".join([*parts, "</svg>"])


def _ordered_layers(graph: "networkx.DiGraph") -> list[list[str]]:
    """Layers by the longest way from a foundation, ordered so that edges cross less."""
    import networkx

    layers = [sorted(layer) for layer in networkx.topological_generations(graph)]
    for _ in range(4):
        for n in range(1, len(layers)):
            place = {id_: row for layer in layers for row, id_ in enumerate(layer)}

            def middle(id_: str, place: dict[str, int] = place) -> tuple[float, str]:
                rows = [place[foundation] for foundation in graph.predecessors(id_)]
                return sum(rows) / len(rows), id_

            layers[n].sort(key=middle)
    return layers


def _edge(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2], start[1] + _ROW / 2
    x2, y2 = end[0], end[1] + _ROW / 2
    bend = (x2 - x1) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.1f} C{x1 + bend:.0f} {y1:.1f} '
        f'{x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"/>'
    )


def _node(id_: str, box: tuple[float, float, float], address: str) -> str:
    left, top, width = box
    text = f'<text x="{left + _PADDING:.0f}" y="{top + _ROW / 2 + 4:.1f}">{html.escape(id_)}</text>'
    return (
        f'<a href="{html.escape(address)}"><rect x="{left:.0f}" y="{top + 2:.1f}" '
        f'width="{width:.0f}" height="{_ROW - 4}" rx="4"/>{text}</a>'
    )
