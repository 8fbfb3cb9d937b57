"""Whatever was edited, an incremental build gives the same files as a clean one."""

import copy
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmref.records import MIME_TYPE, seal
from tests.small_site import EXECUTED, Site, tree

# `make test-all` sets it to 200; here the sequences are the same in every run.
SEQUENCES = int(os.environ.get("LLMREF_SEQUENCES", "6"))
PAGES = ("alpha", "beta", "gamma", "delta")
# What belongs to the site as a whole.
OF_SITE = ("citation", "address", "ids", "static", "style", "data", "preload", "wrong")
OF_SITE += ("caption", "entry")
# Titles of pages, in turn.
TITLES = ("Page {}", "*Page* {}", "`Page` {}", "Page $x$ {}")

CITATION = """title: Small
authors: [{name: Nobody}]
version: "VERSION"
date-released: "2020-01-01"
"""
RECORD = {
    "result": "alpha-0",
    "kind": "exact",
    "figure": "all",
    "rejected": {"other": "0"},
    "statement": ["a = b"],
    "note": "one case",
    "equation": "",
    "turned": 0,
    "function": "",
}
# The module of the page that is now and then wrong.
CHECK = f"""
class Record:
    def _repr_mimebundle_(self, **kwargs):
        record = {RECORD | {"seal": seal(RECORD)}!r}
        return {{"{MIME_TYPE}": record, "text/plain": "checked"}}

class verify:
    statement = staticmethod(lambda id, text: Record())
"""


class Model:
    """What the site should hold: pages with code, prose and results that others cite.

    A page goes by the name of its results; its file may have the name of another one.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.backdated: list[str] = []
        self.modules = {"leaf": 1, "base": 1}
        self.whole = dict.fromkeys(OF_SITE, 1)
        self.pages = {
            name: {
                "code": 1,
                "prose": 1,
                "results": 1,
                "uses": module,
                "title": 1,
                "markup": 0,
                "heading": 1,
                "shown": 1,
            }
            for name, module in (("alpha", "middle"), ("beta", "leaf"), ("gamma", "none"))
        }
        self.files = {name: name for name in self.pages}
        site.use_own_package()
        site.configure(
            f"llmref_citation = {str(site.root / 'CITATION.cff')!r}\n"
            f"llmref_result_ids = {str(site.root / 'ids.txt')!r}\n"
            "html_static_path = ['static']\nhtml_css_files = ['small.css']\n"
            "myst_heading_anchors = 2\n"
            "html_sidebars = {'**': ['globaltoc.html', 'relations.html']}\n"
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
        elif what == "new" and page not in self.pages:
            new = {"code": 1, "prose": 1, "results": 2, "uses": "middle", "title": 1}
            self.pages[page] = {**new, "markup": 0, "heading": 1, "shown": 1}
            self.files[page] = self._free(page)
        elif page not in self.pages:
            return
        elif what == "remove" and page != "alpha":  # the index shows a result of alpha
            del self.pages[page], self.files[page]
        elif what == "rename" and page != "alpha" and other not in self.pages:
            self.pages[other] = self.pages.pop(page)
            del self.files[page]
            self.files[other] = self._free(other)
        elif what == "exchange" and other in self.pages:
            self._exchange(page, other)
        elif what == "older":
            self.pages[page]["prose"] += 1
            self.backdated.append(page)
        elif what in self.pages[page]:
            self.pages[page][what] += 1

    def _free(self, name: str) -> str:
        """The name of a file that is not taken: the page's own, if that may be."""
        return next(file for file in (name, *PAGES) if file not in self.files.values())

    def _exchange(self, page: str, other: str) -> None:
        """Exchange two files, which keep their times; later, links in them may be written again."""
        self.files[page], self.files[other] = self.files[other], self.files[page]
        first, second = (self.site.root / f"{self.files[name]}.md" for name in (page, other))
        if page != other and first.is_file() and second.is_file():
            third = first.with_suffix(".exchanged")
            first.rename(third)
            second.rename(first)
            third.rename(second)

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
        for file in set(PAGES) - set(self.files.values()):
            (self.site.root / f"{file}.md").unlink(missing_ok=True)
        for name, file in self.files.items():
            self._write(f"{file}.md", self._page(name))
        for name in set(self.backdated) & set(self.files):
            os.utime(self.site.root / f"{self.files[name]}.md", (1, 1))
        self.backdated.clear()
        self._write("index.md", self._index())
        cell = "```{code-cell} python\nassert " + ("not " * self.fails) + "1\n```\n"
        self._write("wrong.md", f"{EXECUTED}# Wrong\n\n{cell}")

    def _index(self) -> str:
        """The contents, where a page may have a title of their own, and reports on all results."""
        entry = self.whole["entry"]
        first, *others = sorted(self.files.values())
        if entry % 2 == 0:
            first = f"Entry {entry} <{first}>"
        caption = f":caption: Contents {self.whole['caption']}"
        listed = "\n".join([caption, first, *others, "wrong"])
        reports = "```{ledger}\n```\n\n```{showcase} alpha-0\n```\n"
        return f"# I\n\n```{{toctree}}\n{listed}\n```\n\n{reports}"

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
        # In the order of files, so that two exchanged pages may be cited by the same text.
        cited = "".join(f"See {{prf:ref}}`{other}-0`.\n\n" for other in sorted(self.pages))
        cited += "".join(
            f"[There]({file}.md#part-{self.pages[other]['heading']}),"
            f" or <project:{file}.md#part-0>.\n\n"
            for file, other in sorted((file, other) for other, file in self.files.items())
        )
        headings = f"## Part {page['heading']}\n\n({name}-part)=\n## Part 0\n\nEnd.\n"
        if imports:
            imports += "import pathlib, llmref\ndata = pathlib.Path(llmref.__path__[0], 'data')\n"
            value += ", (data / 'values.json').read_text()"
        title = TITLES[page["markup"] % len(TITLES)].format(f"{name} {page['title']}")
        check = ""
        if name == "alpha":
            check = (
                "```{code-cell} python\nfrom llmref.stated import verify\n"
                f'verify.statement("alpha-0", {page["shown"]})\n```\n\n'
            )
        return (
            f"{EXECUTED}# {title}\n\nProse {page['prose']}.\n\n{results}{cited}"
            f"```{{code-cell}} python\n{imports}print('value', {value}, {page['code']})\n```\n\n"
            f"{check}{headings}"
        )


OF_PAGES = "code prose older results title markup heading shown new remove rename exchange"
EDITED = [*OF_PAGES.split(), "leaf", "base", *OF_SITE]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(EDITED),
        st.sampled_from(PAGES),
        st.sampled_from(PAGES),
        # What is built after this edit: the site, one page of it, or nothing before a further one.
        st.sampled_from(("site", "page", "")),
    ),
    min_size=1,
    max_size=5,
)


def build_page(model: Model) -> None:
    """Build alpha alone, as `make page` does: what is left undone is for the next build of all."""
    model.site.build_here("incremental", llmref_only=model.files["alpha"], **model.config)


def build(model: Model, name: str) -> dict[str, bytes]:
    built = model.site.build_here(name, **model.config)
    assert built.code == model.fails, built.warnings
    assert ("wrong.md" in built.warnings) == model.fails
    assert built.warnings.count("WARNING") == model.fails
    return tree(built.html)


@pytest.fixture(scope="module")
def built(module_site: Callable[[], Site]) -> Model:
    """What every sequence starts from."""
    model = Model(module_site())
    build(model, "incremental")
    model.site.keep()
    return model


@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*MystReferenceResolver")
@settings(
    max_examples=SEQUENCES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(edits=EDITS)
@example(edits=[("remove", "beta", "beta", "")])
@example(edits=[("wrong", "", "", "site"), ("wrong", "", "", "")])
@example(edits=[("citation", "", "", "site"), ("address", "", "", "site"), ("ids", "", "", "site")])
@example(edits=[("ids", "", "", "site")])
@example(edits=[("static", "", "", "site"), ("style", "", "", "site"), ("data", "", "", "site")])
@example(edits=[("heading", "beta", "", "site"), ("shown", "alpha", "", "site")])
@example(edits=[("older", "beta", "", "site"), ("exchange", "beta", "gamma", "site")])
@example(edits=[("older", "beta", "", "site"), ("older", "beta", "", "site")])
@example(
    edits=[("caption", "", "", "site"), ("entry", "", "", "site"), ("markup", "beta", "", "site")]
)
@example(edits=[("code", "alpha", "", ""), ("leaf", "", "", "page")])
@example(edits=[("heading", "beta", "", "page"), ("style", "", "", "page")])
def test_an_incremental_build_equals_a_clean_one(
    built: Model, edits: list[tuple[str, str, str, str]]
) -> None:
    model = copy.deepcopy(built)
    model.site.put_back()
    for what, page, other, then_build in edits:
        model.edit(what, page, other)
        model.write()
        if then_build == "site":
            build(model, "incremental")
        elif then_build == "page":
            build_page(model)
    incremental = build(model, "incremental")
    clean = build(model, "clean")
    assert incremental.keys() == clean.keys()
    assert [name for name in clean if incremental[name] != clean[name]] == []
