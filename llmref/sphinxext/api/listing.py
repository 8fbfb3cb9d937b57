"""The directive `api`: the public names of a group by topic, or of all groups at a glance.

It reads files only. Every name is an object of Sphinx's own domain `py`, so that
{py:func}`llmref.rl.kl.kl_loss` leads to it, on this site and from others (objects.inv).
Leaves out: links that are known only when all pages are read (links).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.api.entries import Choice, Entry, Topic, page_title, read_topics, state
from llmref.sphinxext.api.links import ApiLinks, to_check
from llmref.sphinxext.api.public import PACKAGE, groups
from llmref.sphinxext.api.signatures import signature


class ApiDirective(SphinxDirective):
    """`api` GROUP: the public names of a group; without a group: of all, as links."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section for each topic, and note its names."""
        self.root = Path(self.config.llmref_root)
        self.metadata = self.env.metadata[self.env.docname]
        group = self.arguments[0] if self.arguments else ""
        if group and group not in groups(self.root):
            raise self.error(f"there is no group {group}; there are {', '.join(groups(self.root))}")
        self.metadata["llmref_api_group"] = group
        self.metadata["llmref_api"] = state(group, self.root, Path(self.env.srcdir))
        try:
            return self._group(group) if group else list(self._overview())
        except LookupError as error:
            raise self.error(str(error)) from error

    def _group(self, group: str) -> list[nodes.Node]:
        found = self._topics(group)
        module = f"{PACKAGE}.{group}"
        self._note_module(module, "")
        # All modules before any name: a function may go by the name of its topic.
        for topic in found:
            self._note_module(topic.name, topic.question)
        shown = self.metadata.setdefault("llmref_api_entries", [])
        for topic in found:
            for entry in topic.entries:
                self._note(entry, f"{module}.{entry.name.rpartition('.')[2]}", shown)
        target = nodes.target("", "", ids=[f"module-{module}"])
        return [target, *map(self._section, found)]

    def _topics(self, group: str) -> list[Topic]:
        """Read the topics of a group, and note the files that they were read from."""
        found = read_topics(group, self.root, Path(self.env.srcdir))
        for topic in found:
            files = {entry.definition.path for entry in topic.entries}
            files |= {choice.path for entry in topic.entries for choice in entry.choices}
            for path in sorted({topic.path, *files, *filter(None, [topic.page])}):
                self.env.note_dependency(str(path))
        return found

    def _note_module(self, name: str, synopsis: str) -> None:
        domain = self.env.domains.python_domain
        domain.note_module(name, f"module-{name}", synopsis, "", False)
        domain.note_object(name, "module", f"module-{name}", location=self.get_location())

    def _note(self, entry: Entry, short: str, shown: list[tuple[str, ...]]) -> None:
        """Note a name and its other names: that of the front door, and where it is defined."""
        domain = self.env.domains.python_domain
        domain.note_object(entry.name, entry.kind, entry.name, location=self.get_location())
        within = entry.name.rsplit(".", 2)[0]
        defined = entry.definition.name
        # Another group's name is that group's to note.
        for alias in (short, defined if defined.startswith(f"{within}.") else short):
            if alias not in domain.objects:
                domain.note_object(alias, entry.kind, entry.name, aliased=True)
        for member in entry.members:
            self._note(member, f"{short}.{member.name.rpartition('.')[2]}", [])
        shown.append(to_check(entry, self.root))

    def _section(self, topic: Topic) -> nodes.section:
        """The part of a page on one topic."""
        section = nodes.section("", ids=[f"module-{topic.name}"], classes=["api-topic"])
        section["names"] = []
        section += nodes.title("", "", *self._inline(topic.title))
        about = nodes.paragraph(
            "", "", nodes.literal(topic.name, topic.name), classes=["api-module"]
        )
        if topic.page and (docname := self.env.path2doc(str(topic.page))):
            about += [
                nodes.Text(", derived on the page "),
                page_link(docname, self._inline(topic.title)),
            ]
        about += nodes.Text(".")
        section += [about, nodes.paragraph("", "", *with_code(topic.question))]
        section += map(self._description, topic.entries)
        return section

    def _inline(self, text: str) -> list[nodes.Node]:
        """A title, which may hold formulas."""
        return self.parse_inline(text)[0]

    def _description(self, entry: Entry) -> addnodes.desc:
        """The signature of a name with its summary, its links and its members."""
        description = addnodes.desc("", domain="py", objtype=entry.kind, desctype=entry.kind)
        description["classes"] += ["py", entry.kind, "api"]
        description["no-typesetting"] = False
        content = addnodes.desc_content()
        if entry.summary:
            content += nodes.paragraph("", "", *with_code(entry.summary))
        for choice in entry.choices:
            content += nodes.paragraph("", "", *with_code(_one_of(choice)))
        path = entry.definition.path.relative_to(self.root).as_posix()
        first, last = entry.definition.lines
        content += ApiLinks(
            "",
            name=entry.definition.name,
            equations=list(entry.equations),
            file=path,
            lines=f"{first} to {last}" if last > first else f"{first}",
            url=self.config.llmref_source_url.format(path=path, first=first, last=last),
        )
        content += map(self._description, entry.members)
        description += [signature(entry), content]
        return description

    def _overview(self) -> Iterator[nodes.Node]:
        """Every group with its topics, and their names as links."""
        for group in groups(self.root):
            docname = f"api/{group}"
            title = page_title(Path(self.env.srcdir) / f"{docname}.md").removeprefix("API: ")
            section = nodes.section("", ids=[f"group-{group}"], names=[])
            section += nodes.title(title or group, title or group)
            listing = nodes.definition_list(classes=["api-names"])
            for topic in self._topics(group):
                names = nodes.paragraph()
                for entry in topic.entries:
                    names += [*([nodes.Text(", ")] if len(names) else []), name_link(entry.name)]
                term = nodes.term("", "", *self._inline(topic.title))
                definition = nodes.definition("", names)
                listing += nodes.definition_list_item("", term, definition)
            text = f"{title}: signatures, equations and source"
            full = page_link(docname, [nodes.Text(text)])
            section += [nodes.paragraph("", "", full), listing]
            yield section


def name_link(name: str) -> addnodes.pending_xref:
    """Return a link to the entry of a public name, which is shown short."""
    short = name.rpartition(".")[2]
    return addnodes.pending_xref(
        "", nodes.literal(short, short), refdomain="py", reftype="obj", reftarget=name, refwarn=True
    )


def page_link(docname: str, text: list[nodes.Node]) -> addnodes.pending_xref:
    """Return a link to a page."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", "", *text, classes=["doc"]),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{docname}",
        refexplicit=True,
        refwarn=True,
    )


def with_code(text: str) -> list[nodes.Node]:
    """Return a docstring's text, where `x` in backticks is code."""
    parts = re.split(r"`+([^`]+)`+", text)
    return [
        nodes.literal(part, part) if index % 2 else nodes.Text(part)
        for index, part in enumerate(parts)
        if part
    ]


def _one_of(choice: Choice) -> str:
    """'`kind` is "k1", "k2" or "k3".', as a docstring would say it."""
    quoted = [f'`"{text}"`' for text in choice.texts]
    return f"`{choice.parameter}` is {', '.join(quoted[:-1])} or {quoted[-1]}."


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("api", ApiDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
