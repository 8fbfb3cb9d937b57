"""What a release says of itself: a good project passes each check, a wrong one is named."""

import json
import re
from pathlib import Path

import pytest

from llmref.hosting.release import facts, zenodo
from llmref.hosting.release.checkout import Checkout, RefusedError, listed
from tests.hosting.release.conftest import Project

ROOT = Path(__file__).parents[3]


def refusal(check: object, release: Checkout) -> str:
    with pytest.raises(RefusedError) as raised:
        check(release)  # type: ignore[operator]
    return str(raised.value)


def test_a_good_project_passes(project: Project) -> None:
    said = [
        check(project.release)
        for check in (
            facts.check_tag,
            facts.check_versions,
            facts.check_changelog,
            facts.check_ids,
            facts.check_citation,
            facts.check_authors,
            facts.check_zenodo,
        )
    ]
    assert said == [
        "this commit has no tag yet: v0.2.0 is expected, after v0.1.0",
        "0.2.0 in pyproject.toml, llmref/__init__.py, CITATION.cff, .zenodo.json, CHANGELOG.md",
        "0.2.0 of 2027-01-02, 1 lines",
        "3 ids, 1 of them new",
        "The work (2027-01-02)",
        "Ada Byron, The team, in CITATION.cff, pyproject.toml, LICENSE, docs/_cover.svg",
        ".zenodo.json is valid, and CITATION.cff's",
    ]


def test_the_tag_of_this_commit_is_found(project: Project) -> None:
    project.git("tag", "v0.2.0")
    project.git("tag", "nightly")  # of no release
    assert facts.check_tag(project.release) == "this commit is v0.2.0, after v0.1.0"
    assert (
        facts.check_tag(Checkout(project.root, "v0.2.0")) == "this commit is v0.2.0, after v0.1.0"
    )


def test_a_tag_of_another_version_is_refused(project: Project) -> None:
    said = refusal(facts.check_tag, Checkout(project.root, "v0.3.0"))
    assert said == "TAG=v0.3.0, but the version is 0.2.0: v0.2.0"
    project.git("tag", "v0.1.5")
    said = refusal(facts.check_tag, project.release)
    assert said == "this commit is v0.1.5 already; its version says v0.2.0"


def test_a_tag_that_another_commit_has_is_refused(project: Project) -> None:
    project.git("tag", "v0.2.0")
    project.commit()
    assert refusal(facts.check_tag, project.release) == "v0.2.0 is another commit"


def test_what_no_commit_holds_is_refused(project: Project) -> None:
    project.write("new.txt", "")
    said = refusal(facts.check_tag, project.release)
    assert said == "no commit holds what was changed: new.txt"


def test_a_version_below_the_last_release_is_refused_by_number(project: Project) -> None:
    """0.10 is above 0.9, and 0.2 below it."""
    project.git("tag", "v0.10.0", "HEAD~")
    said = refusal(facts.check_tag, project.release)
    assert said == "v0.2.0 is not above the last release, v0.10.0"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pyproject.toml", 'version = "0.2.0"', 'version = "0.2.1"'),
        ("llmref/__init__.py", "0.2.0", "0.2.1"),
        ("CITATION.cff", "version: 0.2.0", "version: 0.2.1"),
        (".zenodo.json", "0.2.0", "0.2.1"),
        ("CHANGELOG.md", "## 0.2.0", "## 0.2.1"),
    ],
)
def test_a_file_with_another_version_is_refused(
    project: Project, name: str, old: str, new: str
) -> None:
    project.edit(name, old, new)
    said = refusal(facts.check_versions, Checkout(project.root))
    assert said.startswith("the versions differ: ")
    assert f"0.2.1 in {name}" in said
    assert said.count("0.2.0 in ") == 4


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0.2.0 (2027-01-02)", "0.2.0 (not released yet)", "dates 0.2.0 'not released yet'"),
        ("0.2.0 (2027-01-02)", "0.2.0", "dates 0.2.0 ''"),
        ("(2027-01-02)", "(2027-01-03)", "'2027-01-03', CITATION.cff '2027-01-02'"),
        ("## 0.2.0 (2027-01-02)", "## 0.3.0", "has no section '## 0.2.0 (YYYY-MM-DD)'"),
        ("- New.\n", "", "says nothing of 0.2.0"),
    ],
)
def test_a_changelog_without_a_dated_section_that_says_something_is_refused(
    project: Project, old: str, new: str, reason: str
) -> None:
    """The lines of an older version do not count for this one."""
    project.edit("CHANGELOG.md", old, new)
    assert reason in refusal(facts.check_changelog, project.release)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("a-old 0.1.0\n", "", "has lost a-old"),
        ("b-was 0.1.0", "b-was 0.2.0", "another version than v0.1.0 for b-was"),
        ("a-new 0.2.0", "a-new 0.1.0", "new ids are of 0.2.0, not a-new"),
        ("a-new 0.2.0", "a-new 0.3.0", "new ids are of 0.2.0, not a-new"),
    ],
)
def test_ids_that_are_lost_or_of_another_version_are_refused(
    project: Project, old: str, new: str, reason: str
) -> None:
    project.edit("docs/result-ids.txt", old, new)
    assert reason in refusal(facts.check_ids, project.release)


def test_ids_are_compared_with_the_last_release_also_once_this_one_has_its_tag(
    project: Project,
) -> None:
    project.git("tag", "v0.2.0")
    assert facts.check_ids(project.release) == "3 ids, 1 of them new"


def test_the_first_release_has_only_new_ids(project: Project) -> None:
    project.git("tag", "--delete", "v0.1.0")
    assert "not a-old, b-was" in refusal(facts.check_ids, project.release)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('title: "The work"\n', "", "CITATION.cff lacks title"),
        ('message: "Cite it."', "message:", "CITATION.cff lacks message"),
        ("2027-01-02", "soon", "'soon' is no date, YYYY-MM-DD"),
        ("cff-version: 1.2.0", "cff-version: 1.1.0", "of form 1.2.0, not 1.1.0"),
    ],
)
def test_a_citation_that_lacks_something_is_refused(
    project: Project, old: str, new: str, reason: str
) -> None:
    project.edit("CITATION.cff", old, new)
    assert reason in refusal(facts.check_citation, project.release)


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("pyproject.toml", '{ name = "Ada Byron" }, '),
        ("LICENSE", ", The team"),
        ("docs/_cover.svg", "Ada Byron, "),
    ],
)
def test_a_file_that_names_other_authors_is_refused(project: Project, name: str, old: str) -> None:
    project.edit(name, old, "")
    said = refusal(facts.check_authors, project.release)
    assert said == f"CITATION.cff says 'Ada Byron, The team', which {name} must say too"


def test_zenodo_has_the_fields_of_the_citation(project: Project) -> None:
    data = json.loads((project.root / ".zenodo.json").read_text(encoding="utf-8"))
    orcid = "0000-0001-2345-678X"
    ada = {"name": "Byron, Ada", "affiliation": "A house", "orcid": orcid}
    assert data["creators"] == [ada, {"name": "The team"}]
    assert (data["license"], data["upload_type"]) == ("mit", "software")
    assert (data["description"], data["publication_date"]) == ("What it is.", "2027-01-02")


def test_zenodo_must_be_what_the_citation_says(project: Project) -> None:
    project.edit("CITATION.cff", 'title: "The work"', 'title: "Another"')
    project.edit("CITATION.cff", "[one, two]", "[one]")
    said = refusal(facts.check_zenodo, project.release)
    assert said == ".zenodo.json is not CITATION.cff's in title, keywords: make zenodo"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("upload_type", "Software", "$.upload_type: 'software' was expected"),
        ("publication_date", "02.01.2027", "$.publication_date: '02.01.2027' does not match"),
        ("creators", [], "$.creators: [] should be non-empty"),
        ("creators", [{"orcid": "0000-0001-2345-678X"}], "$.creators[0]: 'name' is a required"),
        ("creators", [{"name": "A", "orcid": "https://orcid.org/0"}], "$.creators[0].orcid:"),
        ("license", "MIT or other", "$.license: 'MIT or other' does not match"),
        ("keywords", "one", "$.keywords: 'one' is not of type 'array'"),
        ("version", 2, "$.version: 2 is not of type 'string'"),
        ("upload-type", "software", "'upload-type' was unexpected"),
    ],
)
def test_a_field_that_zenodo_would_not_take_is_refused(
    project: Project, field: str, value: object, reason: str
) -> None:
    data = json.loads((project.root / ".zenodo.json").read_text(encoding="utf-8"))
    project.write(".zenodo.json", json.dumps({**data, field: value}))
    assert reason in refusal(facts.check_zenodo, project.release)


def test_every_field_of_the_schema_is_needed(project: Project) -> None:
    data = zenodo.metadata(project.root)
    assert zenodo.faults(data) == []
    for field in data:
        without = {name: value for name, value in data.items() if name != field}
        assert zenodo.faults(without) == [f"$: {field!r} is a required property"]


def test_this_project_agrees_with_itself() -> None:
    """What does not wait for the day of the release."""
    release = Checkout(ROOT)
    for check in (facts.check_versions, facts.check_citation, facts.check_authors):
        assert check(release)
    assert facts.check_zenodo(release)
    conf = (ROOT / "conf.py").read_text(encoding="utf-8")
    assert not re.search(r"The llmref authors", conf), "conf.py reads CITATION.cff"


def test_a_long_list_is_cut() -> None:
    assert listed(list("abcdefg"), most=5) == "a, b, c, d, e and 2 more"
