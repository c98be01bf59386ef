"""`landscape doctor`: versions and devices of this machine, a correctness check, and timings."""

import os
import platform
import time
import warnings
from typing import TYPE_CHECKING

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import NumericalError

if TYPE_CHECKING:
    from landscape.objective import Objective

NAME = "doctor"
_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "matplotlib",
    "safetensors",
    "scikit-learn",
    "plotly",
    "PyHessian",
    "timm",
    "transformers",
)


def run(terminal: Terminal, common: Common) -> None:
    """Show versions and devices, check Hessian-vector products against a dense Hessian, and time one on the digits.

    Example: landscape doctor --device cpu
    """
    import torch

    from landscape.cli.setup import device_of, objective_of
    from landscape.tasks import resolve

    device = device_of(common.device)
    facts = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        **{name: _version(name) for name in _PACKAGES},
    }
    try:
        from landscape.tasks.torchvision_import import torchvision

        facts["torchvision"] += f", imports ({torchvision.__version__})"
        if not hasattr(torch.ops.torchvision, "nms"):
            terminal.warn(
                f"torchvision {torchvision.__version__} is built for another torch than {torch.__version__}: it works in here, "
                "but a plain `import torchvision` fails, and so do models of transformers and timm in your own Python; install "
                "the pair from one index"
            )
    except Exception as error:  # a broken installation may raise anything; report it
        facts["torchvision"] += f", DOES NOT IMPORT: {error}"
    terminal.table(("", "found"), list(facts.items()))
    worst = _dense_check(device, common.seed)
    terminal.line(f"Hessian-vector product against a dense float64 Hessian: largest relative difference {worst:.1e}")
    objective = objective_of(resolve(model="mlp", data="digits"), common)
    gradient, product = _timed(objective)
    terminal.line(
        f"on {objective.samples} digits, 64-128-64-10 perceptron, {common.dtype}: gradient {gradient * 1e3:.2f} ms, "
        f"Hessian-vector product {product * 1e3:.2f} ms ({product / gradient:.1f} gradients)"
    )
    terminal.document(
        {
            "schema": 1,
            **facts,
            "hvp_error": worst,
            "gradient_seconds": gradient,
            "hvp_seconds": product,
            "samples": objective.samples,
        }
    )
    if common.out is not None:
        from landscape.cli.output_directory import OutputDirectory

        folder = OutputDirectory(common.out, {"command": NAME, **facts})
        folder.json("doctor.json", {"schema": 1, **facts, "hvp_error": worst})
        terminal.written(folder.written)
    if not worst < 1e-9:
        raise NumericalError(
            f"expected Hessian-vector products correct to 1e-9 in float64, found an error of {worst:.1e}",
            fix="report this with the table above",
        )


def _version(package: str) -> str:
    """Version of an installed package."""
    import importlib.metadata  # slow to import

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _dense_check(device: str, seed: int) -> float:
    """Largest relative error of Hessian-vector products of a small network, against the dense Hessian from `torch.func`."""
    import torch

    from landscape.objective import Objective

    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    x = torch.randn(17, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (17,), generator=generator)
    objective = Objective(model, torch.nn.CrossEntropyLoss(), (x, y), dtype="float64", device=device, batch_size=5)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        output = torch.func.functional_call(model, objective.layout.unflatten(theta), (x,))
        return torch.nn.functional.cross_entropy(output, y)

    with warnings.catch_warnings():  # from torch itself, at the first forward-mode derivative; the user cannot act on it
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")
        dense = torch.func.hessian(loss)(objective.theta.cpu())
    products = objective.hvp(torch.eye(objective.dim, dtype=torch.float64)).cpu()
    return float((products - dense).abs().max() / dense.abs().max())


def _timed(objective: "Objective") -> tuple[float, float]:
    """Median seconds of a gradient and of a Hessian-vector product."""
    import torch

    v = torch.randn(objective.dim, generator=torch.Generator().manual_seed(0))
    medians = []
    for work in (objective.gradient, lambda: objective.hvp(v)):
        work()
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            float(work()[0])  # reading a number waits for the device
            seconds.append(time.perf_counter() - started)
        medians.append(sorted(seconds)[2])
    return medians[0], medians[1]
