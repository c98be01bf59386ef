"""What mkdocs does for the site beyond showing the pages as they are (`hooks` in mkdocs.yml).

Pages are written for GitHub, where links lead to files of the repository. On the site links to figures/, notebooks/ and the
README lead to what the site has in their place; notebooks are pages, too; the gallery's pages get their pictures, which
docs/make_gallery.py drew.
"""

import json
import re
from pathlib import Path
from posixpath import relpath
from typing import Any

import notebook_pages
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "build" / "gallery" / "pictures"
# Where links that leave docs/ lead on the site; the rest of the repository is not part of it.
OUTSIDE = {"README.md": "start.md", "docs/README.md": "index.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the figures of the repository, the notebooks, and the pictures of the gallery."""
    for folder, kind in (("figures", "*.png"), ("notebooks", "*.ipynb")):
        for path in sorted((ROOT / folder).glob(kind)):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        markdown, pictures = notebook_pages.page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=markdown))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for path in sorted(PICTURES.glob("*.png")):
        files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Lead links to where the site has their targets, and put the pictures into the gallery."""
    place = Path(page.file.src_uri)
    if place.parent.name == "gallery":
        markdown = _grid(markdown) if place.name == "README.md" else _with_picture(markdown, place.stem)
    return re.sub(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)", lambda link: _led(link, place.parent), markdown)


def _led(link: re.Match[str], folder: Path) -> str:
    """A link in Markdown, with the target that it has on the site."""
    target, anchor = link[1], link[2] or ""
    path = (ROOT / "docs" / folder / target).resolve()
    if not path.is_relative_to(ROOT):
        return link[0]
    inside = path.relative_to(ROOT).as_posix()
    if inside in OUTSIDE:
        found, anchor = OUTSIDE[inside], anchor if inside == "README.md" else ""
    elif inside.startswith(("figures/", "notebooks/")):
        found = inside.removesuffix(".ipynb") + ".md" if inside.endswith(".ipynb") else inside
    else:
        return link[0]
    return f"]({relpath(found, folder.as_posix())}{anchor})"


def _picture(name: str) -> Path:
    """A picture of the gallery, which must have been drawn."""
    path = PICTURES / name
    if not path.exists():
        raise PluginError(f"{name} is missing: run python docs/make_gallery.py {name.partition('.')[0].removesuffix('-small')}")
    return path


def _with_picture(markdown: str, name: str) -> str:
    """A gallery page with its picture where it names the file, and the time that it took."""
    _picture(f"{name}.png")
    title = markdown.partition("\n")[0].lstrip("# ")
    seconds = json.loads((PICTURES / "times.json").read_text())[name]
    took = (
        f"Drawn while this site was built: the command took {seconds['command']:.0f} s, the Python {seconds['python']:.0f} s."
    )
    return re.sub(r"^Picture: `.+`$", f"![{title}]({name}.png){{ .drawn }}\n\n*{took}*", markdown, flags=re.MULTILINE)


def _grid(markdown: str) -> str:
    """The gallery's lists of pages as grids of small pictures."""
    return re.sub(r"(?:^- \[.+\]\(.+\)\n?)+", lambda found: _tiles(found[0]), markdown, flags=re.MULTILINE)


def _tiles(items: str) -> str:
    """A list of links as a grid: pages of the gallery with their small pictures, studies with their figures."""
    tiles = []
    for title, target in re.findall(r"^- \[(.+)\]\((.+)\)$", items, re.MULTILINE):
        page, _, anchor = target.partition("#")
        name = page.removesuffix(".md")
        picture = f"../figures/{anchor}.png" if anchor else _picture(f"{name}-small.png").name
        image = f'<img src="{picture}" alt="" loading="lazy">'
        address = f"{name}.html" + (f"#{anchor}" if anchor else "")
        tiles.append(f'<a class="tile" href="{address}">{image}<span>{title}</span></a>')
    return f'<div class="tiles">\n{"".join(tiles)}\n</div>\n'
