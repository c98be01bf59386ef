"""Curvature by layer, by filter and by attention head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from landscape.results.drawing import drawing, plotted
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("layer", "weights", "trace", "method (95 %)", "largest eigenvalue", "residual", "of top eigenvector")


@dataclass(frozen=True)
class Block:
    """One diagonal block of the Hessian: the weights of a layer, of one of its filters or neurons, or of an attention head.

    Attributes:
        layer: name of the module; "" for the network itself.
        filter: index of the filter or neuron; None for the whole layer or a head.
        weights: number of weights in the block.
        trace: trace of the block; the traces of all layers sum to the trace of the Hessian.
        lambda_max: largest eigenvalue of the block, at most that of the Hessian.
        head: index of the attention head; None otherwise.
        shared: weights in the block that other heads of the layer have, too.
        share: sum of the squares of the block's components of the Hessian's top eigenvector, of length 1; the layers' sum to 1.
            None if unknown.
    """

    layer: str
    filter: int | None
    weights: int
    trace: Estimate
    lambda_max: Estimate
    head: int | None = None
    shared: int = 0
    share: float | None = None

    @property
    def name(self) -> str:
        """Name of the layer, with the filter's index in brackets, or with the number of the head."""
        part = f" head {self.head}" if self.head is not None else "" if self.filter is None else f"[{self.filter}]"
        return (self.layer or "(model)") + part

    def row(self) -> tuple[str, ...]:
        """Cells of a table: name, weights, trace and its error, largest eigenvalue and its error, share of the eigenvector."""
        trace, top = self.trace, self.lambda_max
        doubt = top.doubt() if top.converged else f"NOT CONVERGED: {top.reason}"
        share = "" if self.share is None else f"{self.share:.1%}"
        return (self.name, str(self.weights), f"{trace.value:.5g}", trace.doubt(), f"{top.value:.5g}", doubt, share)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        own: dict[str, Any] = {"layer": self.layer, "filter": self.filter, "weights": self.weights}
        own |= {"trace": self.trace.to_json(), "lambda_max": self.lambda_max.to_json()}
        if self.head is not None:
            own |= {"head": self.head, "shared": self.shared}
        return own if self.share is None else own | {"share": self.share}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Block":
        """Inverse of `to_json`."""
        trace, top = (Estimate.from_json(data[key]) for key in ("trace", "lambda_max"))
        rest = {key: data[key] for key in ("head", "shared", "share") if key in data}
        return cls(data["layer"], data.get("filter"), data["weights"], trace, top, **rest)


class Breakdown(Printed, tuple[Block, ...]):
    """The blocks of a network's layers in order, then those of filters and heads; a tuple that prints as a table."""

    __slots__ = ()

    @property
    def layers(self) -> tuple[Block, ...]:
        """The blocks of whole layers."""
        return tuple(block for block in self if block.filter is None and block.head is None)

    @property
    def filters(self) -> tuple[Block, ...]:
        """The blocks of single filters and neurons."""
        return tuple(block for block in self if block.filter is not None)

    @property
    def heads(self) -> tuple[Block, ...]:
        """The blocks of attention heads."""
        return tuple(block for block in self if block.head is not None)

    def cells(self) -> Cells:
        """One row per layer and head; filters, of which there are too many, are counted."""
        hidden = (f"and {len(self.filters):,} filters and neurons",) if self.filters else ()
        return Cells(HEAD, [block.row() for block in (*self.layers, *self.heads)], after=hidden)

    __repr__ = Printed.__str__

    def records(self) -> list[Mapping[str, Any]]:
        """One row per block, of layers, filters and heads."""
        return [
            {
                "layer": block.layer, "filter": block.filter, "head": block.head, "weights": block.weights,
                "shared": block.shared, "share": block.share,
                "trace": block.trace.value, "trace_stderr": block.trace.stderr,
                "lambda_max": block.lambda_max.value, "residual": block.lambda_max.stderr,
                "converged": block.lambda_max.converged,
            }
            for block in self
        ]  # fmt: skip

    @drawing
    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the traces of the layers and the largest eigenvalues of layers and filters, in two panels of a new figure.

        Returns the upper panel; `ax` must be left out, for one panel cannot hold two units.
        """
        return plotted(self, ax, caption)
