"""Whether a commit can be released: `make release-check`.

checkout: the files, the version and the tags that a release is made from. facts: what is written
down in several places agrees. zenodo: what the archive is told. contents: what the wheel holds.
twice: the site and its EPUB are the same bytes from any folder. All checks are tried, and each
that fails has one line. Leaves out: the tests, which every push runs, and the release itself.
"""
