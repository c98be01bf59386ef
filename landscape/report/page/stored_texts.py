"""Texts kept compressed inside the HTML file: the data of figures and the script of interactive surfaces."""

import base64
import gzip


def packed(text: str) -> str:
    """The text as base64 of its gzip file; equal texts give equal results.

    Example:
        >>> base64.b64decode(packed("loss"))[:2].hex()
        '1f8b'
    """
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode()


class StoredTexts:
    """Texts that the page's script unpacks when they are asked for; each is kept once.

    Attributes:
        kept: id of the element -> packed text.
    """

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def keep(self, text: str) -> str:
        """The id of the element that will hold the text."""
        if text not in self._ids:
            self._ids[text] = f"stored-{len(self._ids) + 1}"
            self.kept[self._ids[text]] = packed(text)
        return self._ids[text]
