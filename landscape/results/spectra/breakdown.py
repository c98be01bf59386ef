"""Curvature by layer and by filter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from landscape.results.drawing import plotted
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("layer", "weights", "trace", "95 %", "largest eigenvalue", "residual")


@dataclass(frozen=True)
class Block:
    """One diagonal block of the Hessian: the weights of a layer, or of one of its filters or neurons.

    Attributes:
        layer: name of the module; "" for the network itself.
        filter: index of the filter or neuron; None for the whole layer.
        weights: number of weights in the block.
        trace: trace of the block; the traces of all layers sum to the trace of the Hessian.
        lambda_max: largest eigenvalue of the block, at most that of the Hessian.
    """

    layer: str
    filter: int | None
    weights: int
    trace: Estimate
    lambda_max: Estimate

    @property
    def name(self) -> str:
        """Name of the layer, with the filter's index in brackets."""
        return (self.layer or "(model)") + ("" if self.filter is None else f"[{self.filter}]")

    def row(self) -> tuple[str, ...]:
        """Cells of a table: name, weights, trace and its error, largest eigenvalue and its error."""
        trace, top = self.trace, self.lambda_max
        doubt = top.doubt() if top.converged else f"NOT CONVERGED: {top.reason}"
        return (self.name, str(self.weights), f"{trace.value:.5g}", trace.doubt(), f"{top.value:.5g}", doubt)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        own = {"layer": self.layer, "filter": self.filter, "weights": self.weights}
        return own | {"trace": self.trace.to_json(), "lambda_max": self.lambda_max.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Block":
        """Inverse of `to_json`."""
        estimates = (Estimate.from_json(data[key]) for key in ("trace", "lambda_max"))
        return cls(data["layer"], data.get("filter"), data["weights"], *estimates)


class Breakdown(Printed, tuple[Block, ...]):
    """The blocks of a network's layers in order, then those of their filters; a tuple that prints as a table."""

    __slots__ = ()

    @property
    def layers(self) -> tuple[Block, ...]:
        """The blocks of whole layers."""
        return tuple(block for block in self if block.filter is None)

    @property
    def filters(self) -> tuple[Block, ...]:
        """The blocks of single filters and neurons."""
        return tuple(block for block in self if block.filter is not None)

    def cells(self) -> Cells:
        """One row per block; only the layers if there are filters too, which a table cannot show."""
        hidden = (f"and {len(self.filters):,} filters and neurons",) if self.filters else ()
        return Cells(HEAD, [block.row() for block in self.layers], after=hidden)

    __repr__ = Printed.__str__

    def records(self) -> list[Mapping[str, Any]]:
        """One row per block, of layers and of filters."""
        return [
            {
                "layer": block.layer, "filter": block.filter, "weights": block.weights,
                "trace": block.trace.value, "trace_stderr": block.trace.stderr,
                "lambda_max": block.lambda_max.value, "residual": block.lambda_max.stderr,
                "converged": block.lambda_max.converged,
            }
            for block in self
        ]  # fmt: skip

    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the traces of the layers and the largest eigenvalues of layers and filters, in two panels of a new figure.

        Returns the upper panel; `ax` must be left out, for one panel cannot hold two units.
        """
        return plotted(self, ax, caption)
