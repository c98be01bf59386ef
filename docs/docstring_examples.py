"""A griffe extension for the reference (mkdocs.yml): the docstrings' section `Example:` is the one that griffe calls `Examples:`."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Doctests are shown as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
