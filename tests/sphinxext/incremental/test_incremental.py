"""Whatever was edited, an incremental build gives the same files as a clean one."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.small_site import EXECUTED, Site, tree

# `make test-all` sets it to 200; here the sequences are the same in every run.
SEQUENCES = int(os.environ.get("LLMREF_SEQUENCES", "6"))
PAGES = ("alpha", "beta", "gamma", "delta")


CITATION = """title: Small
authors: [{name: Nobody}]
version: "VERSION"
date-released: "2020-01-01"
"""
# The module of the page that is now and then wrong.
CHECK = """
class Record:
    def _repr_mimebundle_(self, **kwargs):
        record = dict(result="alpha-0", kind="exact", figure="all", rejected={"other": "0"},
                      statement=["a = b"], note="", equation="")
        return {"application/vnd.llmref.check+json": record, "text/plain": "checked"}

class verify:
    statement = staticmethod(lambda id, text: Record())
"""


class Model:
    """What the site should hold: pages with code, prose and results that others cite."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.modules = {"leaf": 1, "base": 1}
        # What belongs to the site as a whole.
        self.whole = dict.fromkeys(
            ("citation", "address", "ids", "static", "style", "data", "preload", "wrong"), 1
        )
        self.pages = {
            name: {
                "code": 1,
                "prose": 1,
                "results": 1,
                "uses": module,
                "title": 1,
                "heading": 1,
                "shown": 1,
            }
            for name, module in (("alpha", "middle"), ("beta", "leaf"), ("gamma", "none"))
        }
        site.use_own_package()
        site.configure(
            f"llmref_citation = {str(site.root / 'CITATION.cff')!r}\n"
            f"llmref_result_ids = {str(site.root / 'ids.txt')!r}\n"
            "html_static_path = ['static']\nhtml_css_files = ['small.css']\n"
            "myst_heading_anchors = 2\n"
        )
        site.write("package/llmref/middle.py", "from llmref import base\nVALUE = base.VALUE * 10\n")
        site.write("package/llmref/stated.py", CHECK)
        self.write()

    def edit(self, what: str, page: str, other: str) -> None:
        """Apply one edit; an edit of what is not there is no edit."""
        if what in self.modules:
            self.modules[what] += 1
        elif what in self.whole:
            self.whole[what] += 1
        elif what == "new":
            new = {"code": 1, "prose": 1, "results": 2, "uses": "middle", "title": 1}
            self.pages.setdefault(page, {**new, "heading": 1, "shown": 1})
        elif page not in self.pages:
            return
        elif what == "remove" and page != "alpha":  # the index shows a result of alpha
            del self.pages[page]
        elif what == "rename" and page != "alpha" and other not in self.pages:
            self.pages[other] = self.pages.pop(page)
        elif what in self.pages[page]:
            self.pages[page][what] += 1

    @property
    def fails(self) -> bool:
        """Whether the build must."""
        return self.whole["wrong"] % 2 == 0

    @property
    def config(self) -> dict[str, object]:
        return {
            "html_baseurl": f"https://example.org/{self.whole['address']}/",
            "llmref_preload": ("json",) if self.whole["preload"] % 2 else ("json", "zipfile"),
        }

    def write(self) -> None:
        """Write what has changed: an untouched file keeps its time."""
        for name, value in self.modules.items():
            self._write(f"package/llmref/{name}.py", f"VALUE = {value}\n")
        self._write("package/llmref/data/values.json", str(self.whole["data"]))
        self._write("CITATION.cff", CITATION.replace("VERSION", str(self.whole["citation"])))
        self._write("static/small.css", f"p {{ margin: {self.whole['style']}px }}\n")
        for number in range(3):  # one after the other comes and goes
            name = f"static/picture{number}.svg"
            if self.whole["static"] % 3 == number:
                self._write(name, f"<svg>{self.whole['static']}</svg>")
            else:
                (self.site.root / name).unlink(missing_ok=True)
        self._write("ids.txt", self._ids())
        for name in PAGES:
            path = self.site.root / f"{name}.md"
            if name in self.pages:
                self._write(path.name, self._page(name))
            else:
                path.unlink(missing_ok=True)
        names = "\n".join(sorted(self.pages))
        reports = "```{ledger}\n```\n\n```{showcase} alpha-0\n```\n"
        self._write("index.md", f"# I\n\n```{{toctree}}\n{names}\nwrong\n```\n\n{reports}")
        cell = "```{code-cell} python\nassert " + ("not " * self.fails) + "1\n```\n"
        self._write("wrong.md", f"{EXECUTED}# Wrong\n\n{cell}")

    def _ids(self) -> str:
        """All results, each time of another version; every other time one has moved here."""
        numbers = {name: range(page["results"]) for name, page in self.pages.items()}
        results = sorted(f"{name}-{n}" for name in numbers for n in numbers[name])
        moved = ["alpha-old 1 -> alpha-0"] if self.whole["ids"] % 2 else []
        return "\n".join([*moved, *(f"{id_} {self.whole['ids']}" for id_ in results), ""])

    def _write(self, name: str, text: str) -> None:
        path = self.site.root / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def _page(self, name: str) -> str:
        page = self.pages[name]
        imports = "" if page["uses"] == "none" else f"from llmref import {page['uses']} as m\n"
        value = "m.VALUE" if imports else "7"
        statement = "\n$$\na = b\n$$\n"
        results = "".join(
            f":::{{prf:definition}} Result {n}\n:label: {name}-{n}\nIt is.\n{statement}:::\n\n"
            for n in reversed(range(page["results"]))  # a new one renumbers the others
        )
        cited = "".join(
            f"See {{prf:ref}}`{other}-0`, [there]({other}.md#part-{its['heading']}),"
            f" or <project:{other}.md#part-0>.\n\n"
            for other, its in sorted(self.pages.items())
        )
        headings = f"## Part {page['heading']}\n\n({name}-part)=\n## Part 0\n\nEnd.\n"
        if imports:
            imports += "import pathlib, llmref\ndata = pathlib.Path(llmref.__path__[0], 'data')\n"
            value += ", (data / 'values.json').read_text()"
        check = ""
        if name == "alpha":
            check = (
                "```{code-cell} python\nfrom llmref.stated import verify\n"
                f'verify.statement("alpha-0", {page["shown"]})\n```\n\n'
            )
        return (
            f"{EXECUTED}# Page {name} {page['title']}\n\nProse {page['prose']}.\n\n{results}{cited}"
            f"```{{code-cell}} python\n{imports}print('value', {value}, {page['code']})\n```\n\n"
            f"{check}{headings}"
        )


OF_PAGES = "code prose results title heading shown new remove rename"
OF_SITE = "leaf base citation address ids static style data preload wrong"
EDITED = f"{OF_PAGES} {OF_SITE}".split()
EDITS = st.lists(
    st.tuples(
        st.sampled_from(EDITED),
        st.sampled_from(PAGES),
        st.sampled_from(PAGES),
        st.booleans(),  # build after this edit, or only after a further one
    ),
    min_size=1,
    max_size=5,
)


def build(model: Model, name: str) -> dict[str, bytes]:
    built = model.site.build_here(name, **model.config)
    assert built.code == model.fails, built.warnings
    assert ("wrong.md" in built.warnings) == model.fails
    assert built.warnings.count("WARNING") == model.fails
    return tree(built.html)


@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*MystReferenceResolver")
@settings(
    max_examples=SEQUENCES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(edits=EDITS)
@example(edits=[("remove", "beta", "beta", False)])
@example(edits=[("wrong", "", "", True), ("wrong", "", "", False)])
@example(edits=[("citation", "", "", True), ("address", "", "", True), ("ids", "", "", True)])
@example(edits=[("ids", "", "", True)])
@example(edits=[("static", "", "", True), ("style", "", "", True), ("data", "", "", True)])
@example(edits=[("heading", "beta", "", True), ("shown", "alpha", "", True)])
def test_an_incremental_build_equals_a_clean_one(
    edits: list[tuple[str, str, str, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder) / "site")
        model = Model(site)
        build(model, "incremental")
        for what, page, other, then_build in edits:
            model.edit(what, page, other)
            model.write()
            if then_build:
                build(model, "incremental")
        incremental = build(model, "incremental")
        clean = build(model, "clean")
        assert incremental.keys() == clean.keys()
        assert [name for name in clean if incremental[name] != clean[name]] == []
