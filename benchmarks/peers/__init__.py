"""One file a tool: what each calls a product, eigenpairs, a trace, a density, a plane. A peer that is missing is named."""

import importlib
import platform
from dataclasses import dataclass

from benchmarks.record import OURS, version


@dataclass(frozen=True)
class Tool:
    """A package that is timed.

    Attributes:
        name: as it is printed.
        distribution: what pip calls it.
        session: "module:Class" in this package, the adapter for curvature; None if the tool has no curvature.
        parts: of curvature, that it takes part in; None for all.
    """

    name: str
    distribution: str
    session: str | None = None
    parts: tuple[str, ...] | None = None

    @property
    def version(self) -> str | None:
        """The installed version, None if the package is missing."""
        return version(self.distribution)

    def open(self) -> type:
        """The adapter class; imports the package."""
        assert self.session is not None  # asked of curvature tools only
        module, _, name = self.session.partition(":")
        return getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)


LANDSCAPE = Tool(OURS, "landscape-sharpness", "ours:Landscape")
CURVATURE = (
    LANDSCAPE,
    Tool("PyHessian", "PyHessian", "power_iteration:PyHessian"),
    Tool("curvlinops", "curvlinops-for-pytorch", "linear_operators:Curvlinops"),
    Tool("hessian-eigenthings", "hessian-eigenthings", "eigenthings:Eigenthings"),
    Tool("matfree", "matfree", "matfree_estimators:Matfree", parts=("hvp", "trace")),
)
SURFACES = (Tool("loss-landscapes", "loss-landscapes"), Tool("Landscaper", "Landscaper"))


def versions() -> dict[str, str | None]:
    """Of every tool and of what they stand on; None where a package is missing."""
    found = {t.name: t.version for t in (*CURVATURE, *SURFACES)}
    return (
        found
        | {name: version(name) for name in ("torch", "jax", "numpy", "scipy", "typer")}
        | {"python": platform.python_version()}
    )
