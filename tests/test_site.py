"""The documentation as a site: what it is made from, and the built pages."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import landscape

ROOT = Path(__file__).resolve().parent.parent


def test_every_public_name_is_in_the_reference():
    listed = re.findall(r"^::: landscape\.(\w+)$", (ROOT / "docs" / "reference" / "python.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(landscape.__all__)


class Loaded(HTMLParser):
    """What a page loads, the links that it has, and the places in it that links may lead to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("script", "img", "iframe", "source"):
            self.sources += [given[name] for name in ("src", "srcset") if name in given]
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.sources.append(given["href"])
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])


def test_a_loaded_page_is_read(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<link rel="stylesheet" href="a.css"><script src="https://x.y/z.js"></script><a id="b" href="c.html#d">e</a>'
    )
    found = Loaded(page)
    assert (found.sources, found.links, found.anchors) == (["a.css", "https://x.y/z.js"], ["c.html#d"], {"b"})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it, from a copy of the repository."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed: make docs")
    folder = tmp_path_factory.mktemp("repository") / "landscape"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache", "site", "runs"))
    environment = os.environ | {"PYTHONPATH": str(folder)}
    for line in (["docs/make_gallery.py"], ["-m", "mkdocs", "build", "--quiet"]):
        done = subprocess.run([sys.executable, *line], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "site"


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_the_net(site):
    pages = {path: Loaded(path) for path in site.rglob("*.html")}
    assert len(pages) > 60
    for path, page in pages.items():
        for target in (*page.sources, *page.links):
            parts = urlsplit(target)
            if parts.scheme in ("http", "https"):
                assert target in page.links, f"{path.name} loads {target}"
                continue
            if parts.scheme or path.name == "404.html":
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.exists(), f"{path.relative_to(site)}: {target}"
            if parts.fragment and there in pages and parts.fragment != "__skip":
                assert unquote(parts.fragment) in pages[there].anchors, f"{path.relative_to(site)}: {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?https?:", style.read_text()), style.name


@pytest.mark.slow
def test_every_picture_of_the_gallery_is_on_the_site(site):
    named = re.findall(r"\]\(([\w-]+)\.md\)", (ROOT / "docs" / "gallery" / "README.md").read_text())
    assert len(named) >= 12
    for name in named:
        assert f'src="{name}.png"' in (site / "gallery" / f"{name}.html").read_text()
        assert f'src="{name}-small.png"' in (site / "gallery" / "index.html").read_text()
