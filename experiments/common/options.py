"""The command line of a study."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """The command line of a study, the same for all of them.

    Attributes:
        data: spec of the images, e.g. "cifar10:PATH"; None for the digits alone.
        samples: training images of CIFAR-10 that are used.
        width: channels of the first convolution of the convolutional networks.
        seeds: the seeds of the runs.
        runs: folder of trained networks and of finished pieces of work.
        processes: pieces of work at a time, each in a process of one thread.
        device: where networks are trained.
        judge: do no work, and judge again the runs in experiments/results/.
        draw: only draw the figure from the results that are there.
        extend: take the runs that experiments/results/ has, and do only those that it lacks.
        larger: spec of a larger set of such images, of which `memorized_samples` takes more and more; None if there is none.
    """

    data: str | None
    samples: int
    width: int
    seeds: tuple[int, ...]
    runs: Path
    processes: int
    device: str
    judge: bool = False
    draw: bool = False
    extend: bool = False
    larger: str | None = None


def options(description: str | None, *, seeds: int = 5, samples: int = 1000, width: int = 8, images: bool = True) -> Options:
    """Read the command line; the arguments are the study's defaults, and whether it has images at all.

    A study without images takes the options of one with them, so that all studies have one command line, and says that it does
    not use them.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", help="CIFAR-10: a safetensors file, a folder, or a spec such as cifar10:PATH (default: digits alone)"
    )
    parser.add_argument("--samples", type=int, default=samples, help="training images of CIFAR-10 (default: %(default)s)")
    parser.add_argument("--width", type=int, default=width, help="channels of the first convolution (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=seeds, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed; another one repeats the study")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where networks and finished work are kept")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="pieces of work at a time (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--judge", action="store_true", help="do no work: judge the runs in experiments/results/ again, with the same options"
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="take the runs in experiments/results/ that were made with the same options, and do only those that it lacks",
    )
    parser.add_argument(
        "--larger", metavar="PATH", help="a larger set of CIFAR-10 images, for runs of memorized_samples with more of them"
    )
    parser.add_argument("--draw", action="store_true", help="only draw the figure from experiments/results/")
    given = parser.parse_args()
    for name in ("samples", "width", "seeds", "processes"):
        if getattr(given, name) < 1:
            parser.error(f"expected --{name} of at least 1, found {getattr(given, name)}")
    if given.first_seed < 0:
        parser.error(f"expected --first-seed of at least 0, found {given.first_seed}")
    if given.judge and given.extend:
        parser.error("expected --judge or --extend, found both: the one does no work, the other does what is lacking")
    data = given.data
    if not images and data is not None:
        print("this study has no images, and its networks are trained on the CPU: --data and its options are not used")
        data = None
    data, larger = (
        None if path is None else path if path.startswith("cifar10:") else f"cifar10:{path}" for path in (data, given.larger)
    )
    if larger is not None and data is None:
        parser.error("expected --larger beside --data, found it alone")
    for spec, without in ((data, "leave --data out for the digits alone"), (larger, "leave --larger out")):
        if spec is not None and not given.judge and not Path(spec.removeprefix("cifar10:").partition(",")[0]).exists():
            parser.error(f"expected CIFAR-10 at {spec.removeprefix('cifar10:')}, found nothing; {without}")
    return Options(
        data, given.samples, given.width, tuple(range(given.first_seed, given.first_seed + given.seeds)),
        given.runs, given.processes, given.device, given.judge, given.draw, given.extend, larger,
    )  # fmt: skip
