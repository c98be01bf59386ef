"""Runs the pages of docs/gallery/ and collects their pictures for the site: `python docs/make_gallery.py [NAME...]`.

Every page shows a command, the same in Python, and a line `Picture: FILE`. Both are run here, in build/gallery/, on the
networks in experiments/checkpoints/. The command must write FILE, and the Python must save NAME.png, a figure with the same
lines, points, fields, bars and areas; if it has others, the build stops. The pictures go to build/gallery/pictures/, where the
site takes them from (docs/site_hooks.py).
"""

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
GALLERY, WORK = ROOT / "docs" / "gallery", ROOT / "build" / "gallery"
SAME = 1e-3  # relative; sums in another order differ by rounding, which Lanczos runs can enlarge
THUMBNAIL = 640  # pixels wide, twice the width of a tile

sys.path.insert(0, str(ROOT / "tests"))
from pages import blocks, commands  # noqa: E402  # the tests' reader of pages, which is no package


class Broken(Exception):
    """A page whose command fails, or whose Python draws something else."""


def pictured(text: str) -> str | None:
    """The file that a page's command draws, "" for none."""
    found = re.search(r"^Picture: `(.+)`$", text, re.MULTILINE)
    return found[1] if found else None


def pages() -> list[Path]:
    """The pages with a picture, in the order of the gallery's list."""
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (GALLERY / "README.md").read_text())
    return [GALLERY / name for name in listed if pictured((GALLERY / name).read_text())]


def run(line: str) -> None:
    """A command as the program runs it, in this process: importing PyTorch anew for each would take most of the time."""
    from landscape.cli import app

    name, *arguments = shlex.split(line)
    if name != "landscape":
        raise Broken(f"expected a command of landscape, found {line!r}")
    before, sys.argv = sys.argv, [name, *arguments]
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            app.run()
    except SystemExit as end:
        if end.code:
            raise Broken(f"exit {end.code}: {line}\n{printed.getvalue()}") from None
    finally:
        sys.argv = before


def content(figure: Figure) -> list[np.ndarray]:
    """The data of a figure: what its lines, points, fields, bars and areas show, without titles, captions and legends."""
    found: list[Any] = []
    for artist in (artist for axes in figure.axes for artist in axes.get_children() if artist is not axes.patch):
        if isinstance(artist, Line2D):
            found.append(artist.get_xydata())
        elif isinstance(artist, Patch):  # a bar, the outline of a histogram
            found.append(artist.get_patch_transform().transform_path(artist.get_path()).vertices)
        elif isinstance(artist, Collection):
            found += [artist.get_array(), artist.get_offsets(), *(path.vertices for path in artist.get_paths())]
        elif isinstance(artist, ScalarMappable):  # an image
            found.append(artist.get_array())
    known = (np.ma.filled(np.ma.asarray(values, float), np.nan) for values in found if values is not None)
    return [values for values in known if values.size > 1]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two figures show the same data."""
    return len(first) == len(second) > 0 and all(
        a.shape == b.shape and np.allclose(a, b, rtol=SAME, atol=SAME * np.nanmax(np.abs(a), initial=0), equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


@contextmanager
def saved_figures() -> Iterator[dict[bytes, list[np.ndarray]]]:
    """The contents of all figures that are saved meanwhile, by the bytes of their files."""
    found: dict[bytes, list[np.ndarray]] = {}
    own = Figure.savefig

    def savefig(figure: Figure, target: Any, *arguments: Any, **options: Any) -> None:
        own(figure, target, *arguments, **options)
        found[target.getvalue() if isinstance(target, BytesIO) else Path(target).read_bytes()] = content(figure)

    Figure.savefig = savefig  # type: ignore[method-assign]  # for the length of this block
    try:
        yield found
    finally:
        Figure.savefig = own  # type: ignore[method-assign]


def saved_as(file: Path, figures: Mapping[bytes, list[np.ndarray]]) -> list[np.ndarray]:
    """The content of the figure that stands in a file.

    Raises:
        Broken: the file is missing, or none of these figures was saved there last.
    """
    if not file.exists() or (found := figures.get(file.read_bytes())) is None:
        raise Broken(f"expected a figure saved as {file}, found none")
    return found


def draw(page: Path, pictures: Path) -> dict[str, float]:
    """Run a page in the current folder, and keep its picture and a small one; the seconds of command and Python."""
    name, text = page.stem, page.read_text()
    begun = time.perf_counter()
    with saved_figures() as drawn:
        for line in commands(page):
            run(line)
    middle = time.perf_counter()
    with redirect_stdout(StringIO()), saved_figures() as again:
        exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {"__name__": name})
    ended = time.perf_counter()
    picture = Path(str(pictured(text)))
    if not equal(saved_as(picture, drawn), saved_as(Path(f"{name}.png"), again)):
        raise Broken("the Python draws other data than the command")
    shutil.copy(picture, pictures / f"{name}.png")
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.quantize(128).save(pictures / f"{name}-small.png", optimize=True)
    return {"command": middle - begun, "python": ended - middle}


def main() -> int:
    """Draw the pages that are named, or all; 0 if every page holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="*", help="pages to draw; default: all")
    asked = parser.parse_args().name
    os.environ["MPLBACKEND"] = "agg"
    pictures = WORK / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    networks = WORK / "experiments" / "checkpoints"
    shutil.copytree(ROOT / "experiments" / "checkpoints", networks, dirs_exist_ok=True)
    times = pictures / "times.json"
    seconds = json.loads(times.read_text()) if times.exists() else {}
    failed: list[str] = []
    with chdir(WORK):
        for page in (page for page in pages() if not asked or page.stem in asked):
            for old in WORK.glob(f"{page.stem}*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            try:
                seconds[page.stem] = draw(page, pictures)
            except Exception:  # a page may fail in any way; the others are drawn all the same
                failed.append(page.stem)
                print(f"FAIL {page.stem}\n{traceback.format_exc(limit=-3)}", flush=True)
                continue
            print(page.stem, *(f"{k} {v:.2f}" for k, v in seconds[page.stem].items()), flush=True)
            times.write_text(json.dumps(seconds))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
