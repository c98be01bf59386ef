"""`landscape demo`: train four small networks on the embedded digits, then run every command on them."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from landscape.cli.commands import compare, reparam, report, sharpness, spectrum, surface
from landscape.cli.options import CLEAN, Common, Varying
from landscape.cli.surfaces.surface_options import SurfaceOptions
from landscape.cli.terminal import Terminal

NAME = "demo"


def run(terminal: Terminal, common: Common, clean: CLEAN = False) -> None:
    """Train clean, large-batch, corrupted and memorizing networks on digits, then run the other commands on them.

    Example: landscape demo --out demo
    """
    from landscape.cli.setup import device_of
    from landscape.tasks import DEMO_RECIPES, train

    started = time.perf_counter()
    root = common.out or Path("demo")
    paths: dict[str, Path] = {}
    rows = []
    terminal.line("Training four networks, each until its training loss is 0.01")
    for name, recipe in DEMO_RECIPES.items():
        trained = train(
            replace(recipe, seed=common.seed),
            out=root / "runs" / f"{name}.safetensors",
            device=device_of(common.device),
            keep_every=1 if name == "small-batch" else None,
        )
        paths[name], final = trained.path, trained.summary()
        rows.append((name, *(_cell(final, key) for key in ("epochs", "train_loss", "train_accuracy", "test_accuracy"))))
    terminal.table(("network", "epochs", "train loss", "train accuracy", "test accuracy"), rows)

    files = list(paths.values())
    small = paths["small-batch"]
    here, kept = Varying(), root / "runs" / "small-batch-trajectory"

    def cut(**options: Any) -> Callable[[Common], None]:
        return lambda c: surface.run(terminal, small, c, here, SurfaceOptions(**options, clean=clean))

    flag = " --clean" if clean else ""
    steps: list[tuple[str, str, Callable[[Common], None]]] = [
        ("sharpness", f"sharpness {root}/runs/*.safetensors", lambda c: sharpness.run(terminal, files, c, here, None)),
        (
            "spectrum",
            f"spectrum {small} --per-layer{flag}",
            lambda c: spectrum.run(terminal, small, c, here, per_layer=True, clean=clean),
        ),
        ("line", f"surface {small} --dim 1{flag}", cut(dim=1)),
        ("plane", f"surface {small}{flag}", cut()),
        ("trajectory", f"surface {small} --directions pca:{kept}{flag}", cut(directions=f"pca:{kept}")),
        (
            "reparam",
            f"reparam {small} --alpha 5{flag}",
            lambda c: reparam.run(terminal, small, c, here, alpha=5.0, clean=clean),
        ),
        (
            "comparison",
            f"compare {root}/runs/*.safetensors{flag}",
            lambda c: compare.run(terminal, c, here, files, clean=clean),
        ),
    ]
    for folder, text, step in steps:
        terminal.line()
        terminal.line(f"$ landscape {text} --out {root / folder}")
        step(replace(common, out=root / folder))
    page = root / "report.html"
    terminal.line()
    terminal.line(f"$ landscape report {root}{flag} --out {page}")
    report.run(terminal, [root], replace(common, out=page), here, title="landscape demo: four networks on digits", clean=clean)
    # Leave out journals and saved weights, which are not for reading.
    written = sorted(p for p in root.rglob("*") if p.is_file() and not {"points", "measures", kept.name} & set(p.parts))
    terminal.line()
    terminal.line(f"Done in {time.perf_counter() - started:.0f} s. Files:")
    for path in written:
        terminal.line(f"  {path}  ({path.stat().st_size / 1024:.0f} KiB)")
    terminal.line(f"Open {page} in a browser.")
    terminal.document(
        {
            "schema": 1,
            "report": str(page),
            "networks": [dict(zip(_KEYS, r, strict=True)) for r in rows],
            "files": [str(p) for p in written],
        }
    )


_KEYS = ("network", "epochs", "train_loss", "train_accuracy", "test_accuracy")


def _cell(final: dict[str, Any], key: str) -> str:
    """A final loss or accuracy as the table shows it."""
    value = final[key]
    return f"{100 * value:.2f} %" if key.endswith("accuracy") else f"{value:.4g}"
