"""Clean and memorizing networks to try the toolkit on: experiments/checkpoints/*.safetensors.

A perceptron on digits and, with --data, C1 and a ResNet-8 on CIFAR-10 images, each on true and on random labels, with small and
large batches, all to a training loss of 0.01. They are stored in half precision, without the place of the data:
`landscape sharpness experiments/checkpoints/digits-*.safetensors`, and with `--data cifar10:PATH` the others.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from experiments.common.networks import DIGITS, images
from experiments.common.options import ROOT, Options, options
from experiments.common.work import Item, Place, each
from landscape import checkpoints
from landscape.tasks import Recipe

FOLDER = ROOT / "experiments" / "checkpoints"


def planned(given: Options) -> list[Item]:
    """The networks: a name and a recipe each."""
    # Digits are trained by SGD, whose learning rate goes up with the batch; Adam keeps its own.
    bases = {"digits-mlp": (DIGITS, {"lr": 0.04, "epochs": 3000})}
    if given.data:
        bases |= {f"cifar10-{name}": (images(name, given), {}) for name in ("c1", "resnet8")}
    return [
        {"name": f"{name}-{labels}-{batch}-batch", "recipe": replace(recipe, corruption=labels, **changes).to_json()}
        for name, (recipe, large) in bases.items()
        for labels in ("clean", "random-labels")
        for batch, changes in (("small", {}), ("large", {"batch_size": 0.1, **large}))
    ]


def one(item: Item, place: Place) -> Item:
    """Train a network; returns its path and how training ended."""
    path = place.trained(Recipe(**item["recipe"]))
    return {"path": str(path), "final": (checkpoints.read(path).recipe or {})["final"]}


def store(name: str, path: Path) -> int:
    """A copy in half precision with its recipe and labels; returns its bytes."""
    kept = checkpoints.read(path)
    weights = kept.weights().state
    halved = {key: t.half() if t.is_floating_point() else t for key, t in weights.items()}
    worst = max(float((halved[k].double() - t.double()).abs().max()) for k, t in weights.items() if t.is_floating_point())
    described = dict(kept.recipe or {})
    described["data"] = {key: value for key, value in described["data"].items() if key != "path"}
    described |= {"stored": "float16", "history": described["history"][-1:]}
    out = FOLDER / f"{name}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(out, halved, recipe=described, extras=dict(kept.extras))
    print(f"{out.relative_to(ROOT)}: {out.stat().st_size} bytes, weights rounded by at most {worst:.1e}")
    return out.stat().st_size


if __name__ == "__main__":
    given = options(__doc__, seeds=1)
    torch.set_num_threads(1)
    done = each("kept_networks", one, planned(given), given)
    total = sum(store(run["item"]["name"], Path(run["path"])) for run in done)
    print(f"{len(done)} networks, {total / 1e6:.1f} MB")
    for run in done:
        print(run["item"]["name"], json.dumps(run["final"]))
        if run["final"]["stopped"] != "loss":
            sys.exit(f"expected every network to reach its training loss, found {run['item']['name']} short of it")
