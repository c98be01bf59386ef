"""A griffe extension for the reference (mkdocs.yml): the section `Example:` of docstrings is what griffe calls `Examples:`."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Doctests are shown as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
