"""Whatever was edited, an incremental build gives the same files as a clean one."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.small_site import Site, tree

# `make test-all` sets it to 200; here the sequences are the same in every run.
SEQUENCES = int(os.environ.get("LLMREF_SEQUENCES", "6"))
PAGES = ("alpha", "beta", "gamma", "delta")


class Model:
    """What the site should hold: pages with code, prose and results that others cite."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.modules = {"leaf": 1, "base": 1}
        self.pages = {
            name: {"code": 1, "prose": 1, "results": 1, "uses": module, "title": 1}
            for name, module in (("alpha", "middle"), ("beta", "leaf"), ("gamma", "none"))
        }
        site.use_own_package()
        site.write("package/llmref/middle.py", "from llmref import base\nVALUE = base.VALUE * 10\n")
        self.write()

    def edit(self, what: str, page: str, other: str) -> None:
        """Apply one edit; an edit of what is not there is no edit."""
        if what in self.modules:
            self.modules[what] += 1
        elif what == "new":
            self.pages.setdefault(
                page, {"code": 1, "prose": 1, "results": 2, "uses": "middle", "title": 1}
            )
        elif page not in self.pages:
            return
        elif what == "remove":
            del self.pages[page]
        elif what == "rename" and other not in self.pages:
            self.pages[other] = self.pages.pop(page)
        elif what in self.pages[page]:
            self.pages[page][what] += 1

    def write(self) -> None:
        """Write what has changed: an untouched file keeps its time."""
        for name, value in self.modules.items():
            self._write(f"package/llmref/{name}.py", f"VALUE = {value}\n")
        for name in PAGES:
            path = self.site.root / f"{name}.md"
            if name in self.pages:
                self._write(path.name, self._page(name))
            else:
                path.unlink(missing_ok=True)
        names = "\n".join(sorted(self.pages))
        self._write("index.md", f"# I\n\n```{{toctree}}\n{names}\n```\n\n```{{ledger}}\n```\n")

    def _write(self, name: str, text: str) -> None:
        path = self.site.root / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")

    def _page(self, name: str) -> str:
        page = self.pages[name]
        imports = "" if page["uses"] == "none" else f"from llmref import {page['uses']} as m\n"
        value = "m.VALUE" if imports else "7"
        results = "".join(
            f":::{{prf:definition}} Result {n}\n:label: {name}-{n}\nIt is.\n:::\n\n"
            for n in reversed(range(page["results"]))  # a new one renumbers the others
        )
        cited = "".join(f"See {{prf:ref}}`{other}-0`.\n\n" for other in sorted(self.pages))
        return (
            "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"
            f"# Page {name} {page['title']}\n\nProse {page['prose']}.\n\n{results}{cited}"
            f"```{{code-cell}} python\n{imports}print('value', {value}, {page['code']})\n```\n"
        )


EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            ["leaf", "base", "code", "prose", "results", "title", "new", "remove", "rename"]
        ),
        st.sampled_from(PAGES),
        st.sampled_from(PAGES),
        st.booleans(),  # build after this edit, or only after a further one
    ),
    min_size=1,
    max_size=5,
)


def build(site: Site, name: str) -> dict[str, bytes]:
    built = site.build_here(name)
    assert built.code == 0, built.warnings
    return tree(built.html)


@pytest.mark.filterwarnings("default::ResourceWarning")
@settings(
    max_examples=SEQUENCES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(edits=EDITS)
@example(edits=[("remove", "alpha", "alpha", False)])
def test_an_incremental_build_equals_a_clean_one(
    edits: list[tuple[str, str, str, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder) / "site")
        model = Model(site)
        build(site, "incremental")
        for what, page, other, then_build in edits:
            model.edit(what, page, other)
            model.write()
            if then_build:
                build(site, "incremental")
        incremental = build(site, "incremental")
        assert incremental == build(site, "clean")
