"""What Zenodo is told of a release, from CITATION.cff: `make zenodo` writes .zenodo.json.

Zenodo archives each release on GitHub and describes it by .zenodo.json alone if there is one; its
fields are those of zenodo.schema.json. Leaves out: the address of the release, which it adds.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_SCHEMA = Path(__file__).with_name("zenodo.schema.json")
FILE = ".zenodo.json"


def metadata(root: Path) -> dict[str, Any]:
    """Return the fields for the release that CITATION.cff describes."""
    work = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    licenses = work["license"] if isinstance(work["license"], list) else [work["license"]]
    return {
        "title": work["title"],
        "upload_type": "software",
        "description": work["abstract"].strip(),
        "version": str(work["version"]),
        "publication_date": str(work["date-released"]),
        "creators": [_creator(author) for author in work["authors"]],
        "access_right": "open",
        "license": licenses[0].lower(),  # it takes one: the description names the others
        "language": "eng",
        "keywords": work["keywords"],
    }


def _creator(author: dict[str, str]) -> dict[str, str]:
    """'Family, Given' of a person, the name of a group; affiliation and ORCID where given."""
    name = author.get("name") or f"{author['family-names']}, {author['given-names']}"
    found = {"name": name}
    if "affiliation" in author:
        found["affiliation"] = author["affiliation"]
    if "orcid" in author:
        found["orcid"] = author["orcid"].rpartition("/")[2]
    return found


def faults(data: object) -> list[str]:
    """Return what the schema says against a .zenodo.json, each with its place."""
    validator = Draft202012Validator(json.loads(_SCHEMA.read_text(encoding="utf-8")))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]


def as_text(data: dict[str, Any]) -> str:
    """Return the text of the file."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    _root = Path(sys.argv[1])
    (_root / FILE).write_text(as_text(metadata(_root)), encoding="utf-8")
