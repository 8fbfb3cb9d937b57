"""What rests on what: study paths, and pictures that are the same in every build."""

from llmref.sphinxext.results.graph import build_graph, cycles, draw, study_path

RESTS_ON = {
    "a-base": [],
    "b-base": [],
    "c-mid": ["a-base", "b-base"],
    "d-top": ["c-mid", "a-base"],
    "e-alone": [],
    "f-foreign": ["not-a-result"],
}


def test_an_edge_leads_from_the_foundation() -> None:
    edges = set(build_graph(RESTS_ON).edges)
    assert edges == {
        ("a-base", "c-mid"),
        ("b-base", "c-mid"),
        ("c-mid", "d-top"),
        ("a-base", "d-top"),
    }


def test_a_study_path_lists_foundations_first() -> None:
    graph = build_graph(RESTS_ON)
    assert study_path(graph, "d-top") == ["a-base", "b-base", "c-mid"]
    assert study_path(graph, "a-base") == []


def test_the_picture_shows_connected_results_in_layers() -> None:
    svg = draw(build_graph(RESTS_ON), lambda id_: f"page.html#{id_}", "Title & more")
    assert 'aria-label="Title &amp; more"' in svg
    assert svg.count("<path") == 4
    assert "e-alone" not in svg
    left = {
        id_: float(svg.split(f"#{id_}")[1].split('x="')[1].split('"')[0])
        for id_ in RESTS_ON
        if id_[0] in "abcd"
    }
    assert left["a-base"] == left["b-base"] < left["c-mid"] < left["d-top"]


def test_the_picture_does_not_depend_on_the_order_of_reading() -> None:
    other = dict(reversed(RESTS_ON.items()))
    assert draw(build_graph(RESTS_ON), str, "t") == draw(build_graph(other), str, "t")


def test_a_graph_without_an_edge_is_empty() -> None:
    assert "<rect" not in draw(build_graph({"a-base": []}), str, "t")


def test_a_circle_is_named_and_gives_no_path_and_no_picture() -> None:
    graph = build_graph({"a-b": ["c-d"], "c-d": ["a-b"], "e-f": ["a-b"]})
    assert [sorted(circle) for circle in cycles(graph)] == [["a-b", "c-d"]]
    assert study_path(graph, "e-f") == []
    assert draw(graph, str, "t") == ""
    assert cycles(build_graph(RESTS_ON)) == []


def test_many_circles_are_one_knot() -> None:
    """Nine results that all cite each other lie on 125,664 circles; one is enough to name."""
    names = [f"r-{n}" for n in range(9)]
    graph = build_graph({name: [other for other in names if other != name] for name in names})
    (circle,) = cycles(graph)
    assert set(circle) <= set(names)
    assert all(graph.has_edge(a, b) for a, b in zip(circle, [*circle[1:], circle[0]], strict=True))


def test_a_proof_that_cites_its_own_result_is_a_circle() -> None:
    assert cycles(build_graph({"a-b": ["a-b"], "c-d": []})) == [["a-b"]]
