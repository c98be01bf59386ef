"""Notebooks as pages of the site: their text, code and kept outputs in Markdown (docs/site_hooks.py)."""

import base64
import json
import re
from pathlib import Path
from typing import Any


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with a link to the file itself, and its pictures by the name that the page gives them."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data: dict[str, Any] = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the code above draws]({name})")
            elif "text/html" in data:
                parts.append(_table("".join(data["text/html"])))
            else:
                parts.append(f"```text\n{''.join(output.get('text') or data.get('text/plain', ())).rstrip()}\n```")
    parts.insert(1, f"[The notebook itself]({path.name})")
    return "\n\n".join(parts) + "\n", pictures


def _table(html: str) -> str:
    """The HTML of a result without styles of its own and without empty lines, which would end it in Markdown."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return '<div class="printed">\n' + re.sub(r"\n\s*", "\n", html).strip() + "\n</div>"
