"""Pieces of work in several processes, each kept when it is done, so that a study goes on where it was interrupted."""

import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import landscape as ls
from experiments.common.document import LARGER, finite, read, results_in
from experiments.common.options import Options
from landscape.machine.files import write
from landscape.tasks import Recipe, Task, read_data, train

Item = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a piece of work finds its data and keeps its networks. Results do not depend on it.

    Attributes:
        runs: folder of trained networks and of finished pieces of work.
        data: spec of the images, with their path; None if there are none.
        device: where networks are trained.
        larger: spec of the larger set of images, with its path; None if there is none.
    """

    runs: Path
    data: str | None
    device: str
    larger: str | None = None

    def trained(self, recipe: Recipe, *, keep_every: int | None = None) -> Path:
        """The checkpoint of a recipe, trained once, by whichever study comes first."""
        digest = hashlib.sha256(json.dumps(recipe.to_json() | {"kept": keep_every}, sort_keys=True).encode()).hexdigest()[:12]
        out = self.runs / "networks" / f"{recipe.data}-{recipe.network}-{recipe.corruption}-{recipe.seed}-{digest}.safetensors"
        return train(
            recipe, out=out, data_path=self._data(recipe), device=self.device, keep_every=keep_every, save_every=60.0
        ).path

    def task(self, recipe: Recipe, *, keep_every: int | None = None) -> Task:
        """The trained network of a recipe on its data, corrupted as in training."""
        return ls.load(self.trained(recipe, keep_every=keep_every), data=self._data(recipe))

    def _data(self, recipe: Recipe) -> str | None:
        """The spec of the data of a recipe, with their path."""
        return None if recipe.data == "digits" else self.data


def each(study: str, function: Callable[[Item, Place], Item], items: Sequence[Item], options: Options) -> list[Item]:
    """`function(item, place)` for every item; with --judge, the results that experiments/results/STUDY.json has.

    With --extend, too, but what is not there is done.

    An item is a plain dictionary with everything that determines its result; the result is one, too. Both are kept in
    RUNS/STUDY/, and a result that is there is not computed again. A function that changes needs a new name or another entry in
    its items.

    Args:
        study: name of the study.
        function: of the top level of a module, so that other processes find it.
        items: the pieces of work.
        options: of the command line.

    Returns:
        For each item, in their order: {"item": ..., "seconds": ..., **result}, as they stand in the document of the study.
    """
    if options.judge:
        return _judged_before(study, items, options)
    _same_images(options)
    known = _on_record(study, options) if options.extend else {}
    place = Place(options.runs, options.data, options.device, options.larger)
    module = function.__module__ if function.__module__ != "__main__" else f"experiments.{study}"
    paths = [_path(options.runs / study, function.__qualname__, item) for item in items]
    kept = [known.get(_key(item)) for item in items]
    waiting = [i for i, path in enumerate(paths) if kept[i] is None and not path.exists()]
    if waiting:
        print(f"{study}: {len(waiting)} of {len(items)} pieces of work to do", flush=True)
        started, context = time.perf_counter(), multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.processes, mp_context=context, initializer=_begin) as pool:
            jobs = {pool.submit(_done, module, function.__qualname__, items[i], place, paths[i]): i for i in waiting}
            try:
                for count, job in enumerate(as_completed(jobs), 1):
                    seconds, left = job.result(), len(waiting) - count
                    spent = time.perf_counter() - started
                    told = ", ".join(f"{k} {v}" for k, v in items[jobs[job]].items() if not isinstance(v, dict | list))
                    print(
                        f"  {count}/{len(waiting)}  {seconds:6.1f} s  {told}; about {spent / count * left / 60:.0f} min left",
                        flush=True,
                    )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [result or finite(json.loads(path.read_text())) for result, path in zip(kept, paths, strict=True)]


def _judged_before(study: str, items: Sequence[Item], options: Options) -> list[Item]:
    """The results for the items in the document of a study, which must have been made with the same options."""
    known = _on_record(study, options)
    found = [known.get(_key(item)) for item in items]
    if None in found:
        sys.exit(
            f"expected all {len(items)} runs in the results of {study}, found {len(items) - found.count(None)}; "
            "give --judge the options with which they were made, or leave it out to do the work"
        )
    return [result for result in found if result is not None]


def _on_record(study: str, options: Options) -> dict[str, Item]:
    """Every result in the document of a study by its item; it must have been made with the same options, and images."""
    how, flag = read(study)["how"], "--judge" if options.judge else "--extend"
    same = how["seeds"] == list(options.seeds)
    if "cifar10" in how["data"]:
        same &= options.data is not None and (how["samples"], how["width"]) == (options.samples, options.width)
    if not same:
        sys.exit(f"expected the options with which the results were made, found others; run: {how['script']} {flag}")
    if not options.judge:
        for name, spec in (("cifar10", options.data), (LARGER, options.larger)):
            if spec is not None and how["data"].get(name, found := read_data(spec).fingerprint) != found:
                sys.exit(f"expected the images with which the results of {study} were made, found others in {spec}")
    return {_key(result["item"]): result for result in results_in(read(study))}


def _key(item: Item) -> str:
    """What tells an item from all others, with numbers as they are kept."""
    return json.dumps(finite(item), sort_keys=True)


def _same_images(options: Options) -> None:
    """Stop if the runs that are kept were made with other images: their results do not name them."""
    for spec, name in ((options.data, "images"), (options.larger, "larger-images")):
        if spec is None:
            continue
        kept, found = options.runs / f"{name}.json", read_data(spec).fingerprint
        if kept.exists() and json.loads(kept.read_text()) != found:
            sys.exit(
                f"expected the images with which the runs in {options.runs} were made, found others; choose another --runs"
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        write(kept, json.dumps(found).encode())


def _begin() -> None:
    """A process of one thread, which ends when the one that started it does."""
    torch.set_num_threads(1)

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _path(folder: Path, name: str, item: Item) -> Path:
    """Where the result for an item is kept."""
    digest = hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{name}-{digest}.json"


def _done(module: str, name: str, item: Item, place: Place, path: Path) -> float:
    """Compute one result and keep it; returns the seconds of processor time it took."""
    function = getattr(__import__(module, fromlist=[name]), name)
    started = time.process_time()  # of this process alone, however busy the machine is
    result = function(item, place)
    seconds = round(time.process_time() - started, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps({"item": item, "seconds": seconds, **result}, allow_nan=False).encode())
    return seconds
