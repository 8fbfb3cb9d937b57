"""The book for e-readers: complete, valid, and readable without a script or a network."""

import posixpath
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit
from zipfile import ZIP_STORED, ZipFile

import pytest

from .conftest import ROOT

XHTML = "{http://www.w3.org/1999/xhtml}"
MATHML = "{http://www.w3.org/1998/Math/MathML}"
OPF = "{http://www.idpf.org/2007/opf}"
DC = "{http://purl.org/dc/elements/1.1/}"


@pytest.fixture(scope="module")
def epub() -> ZipFile:
    path = ROOT / "_build" / "llmref.epub"
    assert path.is_file(), "there is no book: run make test-site"
    return ZipFile(path)


@pytest.fixture(scope="module")
def pages(epub: ZipFile) -> dict[str, ET.Element]:
    """Every page, which must be well-formed."""
    return {
        name: ET.fromstring(epub.read(name)) for name in epub.namelist() if name.endswith(".xhtml")
    }


@pytest.fixture(scope="module")
def package(epub: ZipFile) -> ET.Element:
    return ET.fromstring(epub.read("content.opf"))


def test_the_mimetype_comes_first_and_uncompressed(epub: ZipFile) -> None:
    first = epub.infolist()[0]
    assert (first.filename, first.compress_type) == ("mimetype", ZIP_STORED)
    assert epub.read(first) == b"application/epub+zip"


def test_it_says_what_it_is(package: ET.Element) -> None:
    said = {name: package.findtext(f".//{DC}{name}") for name in ("title", "creator", "rights")}
    assert said == {
        "title": "llmref: the mathematics of large language models",
        "creator": "The llmref authors",
        "rights": "The llmref authors, text CC BY 4.0, code MIT",
    }
    assert package.findtext(f".//{DC}language") == "en"
    assert package.findtext(f".//{DC}identifier", "").startswith("https://")
    assert "unknown" not in ET.tostring(package, encoding="unicode")


def test_the_manifest_lists_every_file_and_what_it_holds(
    epub: ZipFile, package: ET.Element, pages: dict[str, ET.Element]
) -> None:
    items = {item.get("href", ""): item for item in package.iter(f"{OPF}item")}
    names = {name for name in epub.namelist() if name not in ("mimetype", "content.opf")}
    assert {unquote(name) for name in items} == names - {"META-INF/container.xml"}
    for name, page in pages.items():
        has_formula = next(page.iter(f"{MATHML}math"), None) is not None
        assert ("mathml" in items[name].get("properties", "").split()) == has_formula, name
    assert items["_static/cover.png"].get("properties") == "cover-image"


def test_every_topic_is_in_the_reading_order_and_in_the_contents(
    package: ET.Element, pages: dict[str, ET.Element]
) -> None:
    names = {item.get("id"): item.get("href") for item in package.iter(f"{OPF}item")}
    read = [names[ref.get("idref")] for ref in package.iter(f"{OPF}itemref")]
    listed = {link.get("href") for link in pages["nav.xhtml"].iter(f"{XHTML}a")}
    groups = ("attention", "components", "functional", "inference", "norm", "rl", "training")
    for group in groups:
        for path in (ROOT / "docs" / group).glob("*.md"):
            name = f"{group}/{path.stem}.xhtml"
            assert name in read
            assert name in listed
    assert read[:2] == ["epub-cover.xhtml", "index.xhtml"]


def test_every_link_inside_leads_somewhere(epub: ZipFile, pages: dict[str, ET.Element]) -> None:
    ids = {name: [e.get("id") for e in page.iter() if e.get("id")] for name, page in pages.items()}
    files = set(epub.namelist())
    count = 0
    for name, page in pages.items():
        assert len(ids[name]) == len(set(ids[name])), name
        for element in page.iter():
            for attribute in ("href", "src"):
                link = element.get(attribute)
                if link is None or urlsplit(link).scheme:
                    continue
                address, anchor = urldefrag(link)
                target = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), unquote(address))
                )
                target = target if address else name
                assert target in files, (name, link)
                assert not anchor or unquote(anchor) in ids[target], (name, link)
                count += 1
    assert count > 2000


def test_nothing_is_fetched_and_nothing_runs(epub: ZipFile, pages: dict[str, ET.Element]) -> None:
    for name, page in pages.items():
        for element in page.iter():
            assert element.tag not in {f"{XHTML}{tag}" for tag in ("script", "iframe", "form")}, (
                name
            )
            if element.tag != f"{XHTML}a":
                for attribute in ("src", "href"):
                    assert not urlsplit(element.get(attribute, "")).scheme, name
    for name in epub.namelist():
        if name.endswith((".css", ".svg")):
            assert not re.search(rb"url\(\s*['\"]?https?:|@import", epub.read(name)), name


def test_every_formula_is_mathml_and_no_tex_is_seen(
    html: Path, pages: dict[str, ET.Element]
) -> None:
    formulas = 0
    for name, page in pages.items():
        for box in page.iter():
            if "math" in box.get("class", "").split():
                assert next(box.iter(f"{MATHML}math"), None) is not None, name
                formulas += 1
                text = "".join(box.itertext())
                assert not re.search(r"\\[a-zA-Z]|\$", text), (name, text)
        assert next(page.iter(f"{MATHML}annotation"), None) is None
    assert formulas > 5000


def test_formulas_are_what_browsers_know(pages: dict[str, ET.Element]) -> None:
    """Scripts have a base and what they say; expectations are written with a letter of Unicode."""
    children = {"msub": 2, "msup": 2, "mover": 2, "munder": 2, "mfrac": 2, "msubsup": 3}
    for name, page in pages.items():
        for tag, number in children.items():
            assert all(len(element) == number for element in page.iter(MATHML + tag)), (name, tag)
        variants = {element.get("mathvariant") for element in page.iter()}
        assert variants <= {None, "normal"}, name
    assert "𝔼" in "".join(pages["rl/kl.xhtml"].itertext())


def test_nothing_is_folded_and_each_result_keeps_its_permanent_link(
    pages: dict[str, ET.Element],
) -> None:
    assert not [
        n for n, page in pages.items() if next(page.iter(f"{XHTML}details"), None) is not None
    ]
    page = pages["rl/kl.xhtml"]
    links = {e.get("href", "") for e in page.iter() if e.get("class") == "result-id"}
    assert any(link.endswith("/rl/kl.html#kl-unbiased") for link in links)
    assert all(link.startswith("https://") for link in links)
    classes = " ".join(e.get("class", "") for e in page.iter()).split()
    assert {"result", "proof", "bar", "check-body", "fold"} <= set(classes)
    assert not {"cite", "bar-code"} & set(classes)
    # What a control of the site would say.
    said = [n for n, page in pages.items() if "code cell source" in "".join(page.itertext())]
    assert not said
