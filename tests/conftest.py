"""Shared by all tests: fixtures that build small Sphinx sites."""

pytest_plugins = ("sphinx.testing.fixtures",)
