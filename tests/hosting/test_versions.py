"""Two releases and the latest site, in one tree: links kept, versions listed, old ones marked."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmref.hosting.versions import LIST, NOTICE, assemble, main, releases_in


def write_site(folder: Path, pages: dict[str, list[str]], text: str) -> Path:
    """A built site in small: its pages with the ids of their results."""
    for name, ids in pages.items():
        boxes = "".join(
            f'<div class="result" id="{id_}"><a class="result-id" href="#{id_}">{id_}</a></div>'
            for id_ in ids
        )
        path = folder / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<nav>{LIST}</nav><article>{NOTICE}{text}{boxes}</article>")
    results = [
        {"id": id_, "page": name, "formerly": []} for name, ids in pages.items() for id_ in ids
    ]
    (folder / "results.json").write_text(json.dumps({"results": results}))
    (folder / "sitemap.xml").write_text("<urlset/>")
    return folder


class Links(HTMLParser):
    """The addresses of all links that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.extend(value for name, value in attrs if name == "href" and value)


def links_on(page: Path) -> list[str]:
    parser = Links()
    parser.feed(page.read_text())
    return parser.found


@pytest.fixture
def latest(tmp_path: Path) -> Path:
    return write_site(
        tmp_path / "latest", {"index": [], "rl/kl": ["kl-a", "kl-b"], "rl/new": ["new-a"]}, "now"
    )


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    folder = tmp_path / "releases"
    write_site(folder / "v0.9.0", {"index": [], "rl/kl": ["kl-a"], "404": []}, "first")
    write_site(folder / "v0.10.0", {"index": [], "rl/kl": ["kl-a", "kl-b"]}, "second")
    (folder / "v0.10.0" / "llmref.pdf").write_bytes(b"%PDF")
    return folder


@pytest.fixture
def hosted(latest: Path, releases: Path, tmp_path: Path) -> Path:
    assemble(latest, releases_in(releases), tmp_path / "hosted")
    return tmp_path / "hosted"


def test_the_latest_version_is_at_the_root_and_each_release_in_its_folder(hosted: Path) -> None:
    assert "now" in (hosted / "rl/kl.html").read_text()
    assert "first" in (hosted / "v0.9.0/rl/kl.html").read_text()
    assert "second" in (hosted / "v0.10.0/rl/kl.html").read_text()


def test_what_stood_there_before_is_gone(hosted: Path, latest: Path, releases: Path) -> None:
    (hosted / "rl/kl.html").rename(hosted / "rl/gone.html")
    (hosted / "v0.1.0").mkdir()
    assemble(latest, releases_in(releases), hosted)
    assert not (hosted / "rl/gone.html").exists()
    assert not (hosted / "v0.1.0").exists()
    assert "now" in (hosted / "rl/kl.html").read_text()


def test_a_page_whose_name_means_something_in_html_is_linked(tmp_path: Path) -> None:
    name = "a&lt;b"
    site = write_site(tmp_path / "latest", {"index": [], name: []}, "now")
    old = write_site(tmp_path / "releases/v0.1.0", {"index": [], name: []}, "old")
    assemble(site, [old], tmp_path / "hosted")
    assert f"v0.1.0/{name}.html" in links_on(tmp_path / "hosted" / f"{name}.html")


def test_notebooks_of_a_release_find_its_wheel_at_the_root(
    latest: Path, releases: Path, tmp_path: Path
) -> None:
    """A release that was built with the version of the latest site is what that version is."""
    for folder, name in (
        (latest, "b-2"),
        (releases / "v0.9.0", "b-1"),
        (releases / "v0.10.0", "b-2"),
    ):
        (folder / "_static").mkdir()
        (folder / "_static" / f"{name}.whl").write_text(folder.name)
    assemble(latest, releases_in(releases), tmp_path / "hosted")
    wheels = {path.name: path.read_text() for path in (tmp_path / "hosted/_static").glob("*.whl")}
    assert wheels == {"b-1.whl": "v0.9.0", "b-2.whl": "v0.10.0"}


def test_the_newest_release_comes_first_by_number_not_by_letter(releases: Path) -> None:
    assert [path.name for path in releases_in(releases)] == ["v0.10.0", "v0.9.0"]


def test_every_page_lists_the_same_page_in_every_version(hosted: Path) -> None:
    text = (hosted / "v0.9.0/rl/kl.html").read_text()
    assert "<summary>Version: v0.9.0</summary>" in text
    assert '<a href="../../rl/kl.html">latest</a>' in text
    assert '<a href="../../v0.10.0/rl/kl.html">v0.10.0</a>' in text
    assert '<a href="kl.html" aria-current="true">v0.9.0</a>' in text
    assert LIST not in text


def test_a_page_that_a_version_lacks_leads_to_its_first_page(hosted: Path) -> None:
    text = (hosted / "rl/new.html").read_text()
    assert '<a href="../v0.9.0/index.html">v0.9.0</a>' in text


def test_an_old_page_says_so_and_its_results_lead_to_the_latest(hosted: Path) -> None:
    text = (hosted / "v0.9.0/rl/kl.html").read_text()
    assert 'This is version 0.9.0. <a href="../../rl/kl.html">' in text
    assert '<a class="result-id" href="../../rl/kl.html#kl-a">' in text


def test_the_latest_page_keeps_its_own_links(hosted: Path) -> None:
    text = (hosted / "rl/kl.html").read_text()
    assert "old-version" not in text
    assert '<a class="result-id" href="#kl-a">' in text


def test_books_are_offered_where_they_are(hosted: Path) -> None:
    assert '<a href="../llmref.pdf">PDF</a>' in (hosted / "v0.10.0/rl/kl.html").read_text()
    assert "PDF" not in (hosted / "v0.9.0/rl/kl.html").read_text()


def test_only_the_root_speaks_for_the_whole_site(hosted: Path) -> None:
    assert (hosted / "sitemap.xml").is_file()
    assert not (hosted / "v0.9.0/404.html").exists()
    assert not (hosted / "v0.9.0/sitemap.xml").exists()


def test_every_link_of_the_tree_leads_to_a_file(hosted: Path) -> None:
    for path in hosted.rglob("*.html"):
        found = links_on(path)
        assert found
        for link in found:
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.is_file(), (path, link)
            assert not anchor or f'id="{anchor}"' in target.read_text(), (path, link)


def test_a_permanent_link_that_would_die_stops_the_assembly(
    latest: Path, releases: Path, tmp_path: Path
) -> None:
    page = latest / "rl/kl.html"
    page.write_text(page.read_text().replace('id="kl-b"', 'id="kl-c"'))
    with pytest.raises(
        SystemExit, match=r"versions: links of v0.10.0 would be dead: rl/kl.html#kl-b"
    ):
        main(latest, releases, tmp_path / "hosted")
    assert not (tmp_path / "hosted").exists()


def test_a_former_id_keeps_its_link_too(latest: Path, releases: Path, tmp_path: Path) -> None:
    listed = releases / "v0.9.0" / "results.json"
    data = json.loads(listed.read_text())
    data["results"][0]["formerly"] = ["kl-once"]
    listed.write_text(json.dumps(data))
    with pytest.raises(SystemExit, match=r"links of v0.9.0 would be dead: rl/kl.html#kl-once"):
        main(latest, releases, tmp_path / "hosted")


def test_the_templates_of_the_theme_are_left_alone(
    latest: Path, releases: Path, tmp_path: Path
) -> None:
    template = latest / "_static" / "theme.html"
    template.parent.mkdir()
    template.write_text(LIST)
    main(latest, releases, tmp_path / "hosted")
    assert (tmp_path / "hosted" / "_static" / "theme.html").read_text() == LIST


def test_a_folder_that_is_no_release_is_refused(releases: Path) -> None:
    (releases / "nightly").mkdir()
    with pytest.raises(ValueError, match="not nightly"):
        releases_in(releases)


def test_without_a_release_the_site_is_the_latest_alone(latest: Path, tmp_path: Path) -> None:
    main(latest, tmp_path / "none", tmp_path / "hosted")
    text = (tmp_path / "hosted/index.html").read_text()
    assert text.count("<li>") == 1
    assert "Version: latest" in text
