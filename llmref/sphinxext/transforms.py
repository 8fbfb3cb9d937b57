"""Transforms that fill in places of a page once all pages are read, and link to other pages."""

from typing import ClassVar

from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.transforms.post_transforms import SphinxPostTransform


class LinkingTransform(SphinxPostTransform):
    """A transform that knows the builder, and with it the addresses of pages.

    Sphinx hands a transform the environment only; its way from there to the builder is deprecated.
    """

    default_priority = 5  # before references are resolved
    builder: ClassVar[Builder]

    @classmethod
    def register(cls, app: Sphinx) -> None:
        """Add the transform to a build."""
        app.add_post_transform(cls)
        app.connect("builder-inited", cls._note_builder)

    @classmethod
    def _note_builder(cls, app: Sphinx) -> None:
        cls.builder = app.builder
