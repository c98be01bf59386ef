"""Changes of the weights other than a positive factor an element: matrices, shifts and biases that the function ignores."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from landscape.symmetry.families import Family

Group = Literal["general", "rotary", "orthogonal", "centred"]

_GROUPS: dict[Group, str] = {
    "general": "any invertible matrix",
    "rotary": "a factor and a rotation for each pair of channels that is turned",
    "orthogonal": "any orthogonal matrix",
    "centred": "any orthogonal matrix that keeps (1, ..., 1)",
}


# The place of constants that might move all outputs together, where these are not the channels of one layer.
OUTPUTS = "the outputs: a constant in all of them"


@dataclass(frozen=True, eq=False)
class Rows:
    """Elements of one parameter, arranged as rows of h numbers that a matrix A (h x h) acts on from the right.

    Attributes:
        name: of the parameter.
        index: (r, h) positions in the flattened parameter.
        inverse: False where g becomes g A^T (what writes the channels), True where it becomes g A^-1 (what reads them).
        gain: name of a normalization's gain c between the channels and these rows, whose h elements are those of the row:
            g becomes (g c) A^-1 / c, or (g / c) A^T c; None without one. Only rotations have one.
        gain_index: positions of these h elements in the flattened gain.
    """

    name: str
    index: Int[Tensor, "r h"]
    inverse: bool
    gain: str | None = None
    gain_index: Int[Tensor, " h"] | None = None


@dataclass(frozen=True, eq=False)
class Mixing:
    """Channels that the network only uses linearly, so that a matrix may mix them: z becomes A z in all that writes and reads.

    Attributes:
        name: for reports, e.g. "attn.q_proj and attn.k_proj, channels 0 to 15".
        size: h, the number of channels.
        group: the matrices that keep the function: "general" all invertible ones; "rotary" a factor and a rotation for each
            pair of channels in `turned`, which commute with a rotary embedding; "orthogonal"; "centred" the orthogonal ones
            that keep (1, ..., 1), for a LayerNorm.
        rows: what it changes.
        turned: (h / 2, 2) positions of the channels that a rotary embedding turns together; only for "rotary".
    """

    name: str
    size: int
    group: Group
    rows: tuple[Rows, ...]
    turned: Int[Tensor, "k 2"] | None = None

    @property
    def family(self) -> Family:
        """ "pair" for invertible matrices, "rotation" for orthogonal ones."""
        return "pair" if self.group in ("general", "rotary") else "rotation"

    def __str__(self) -> str:
        return f"{self.name} ({self.size} channels): {_GROUPS[self.group]}"


@dataclass(frozen=True, eq=False)
class Shift:
    """A constant added to weights that a softmax, or the mean of a LayerNorm, takes away; the Hessian has no curvature there.

    Attributes:
        name: for reports.
        rows: parameter -> (r, h) positions in the flattened parameter; every row may have its own constant.
        uniform: True where a row changes by a multiple of (1, ..., 1), False where by any vector of h numbers.
        outputs: True where the network's outputs all move by a constant, which its loss ignores.
    """

    name: str
    rows: dict[str, Int[Tensor, "r h"]]
    uniform: bool
    outputs: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def family(self) -> Family:
        """ "shift"."""
        return "shift"


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear map whose bias takes away what a shift of its input adds: bias[o] - sum_c weight[o, c] d_c."""

    bias: str
    bias_index: Int[Tensor, " o"]
    weight: str
    weight_index: Int[Tensor, "o h"]


@dataclass(frozen=True, eq=False)
class Trade:
    """A vector d of h numbers added to one bias and taken from another, or from the biases of all that reads it.

    Attributes:
        name: for reports.
        plus, minus: parameter or running mean -> (r, h) positions in the flattened tensor; d is added to, or taken from, each
            row.
        readers: the linear maps whose biases take d away.
        uniform: True where only multiples of (1, ..., 1) keep the function, because a LayerNorm reads d too.
        statistics: whether one of `plus` is a running mean.
        outputs: True where the network's outputs all move by a constant, which its loss ignores: a table that also reads them.
    """

    name: str
    plus: dict[str, Int[Tensor, "r h"]]
    minus: dict[str, Int[Tensor, "r h"]]
    readers: tuple[Reader, ...] = ()
    uniform: bool = False
    statistics: bool = False
    outputs: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def family(self) -> Family:
        """ "shift" between weights that are added: the change is the same at all weights, and has no curvature. Else "bias"."""
        return "bias" if self.readers or self.statistics else "shift"


@dataclass(frozen=True, eq=False)
class Centring:
    """Weights that read what a LayerNorm has centred: v / gain added to a row reads v times a sum that is always zero.

    Attributes:
        name: for reports.
        weight, index: the parameter, and (o, h) positions in it; row o may have its own number v[o].
        gain, gain_index: the LayerNorm's gain and the positions of its h elements; None without one.
        shift, shift_index: its shift, which is not centred: bias[o] must lose v[o] * factor * sum(shift / gain); None without
            one.
        factor: by which the LayerNorm's result is multiplied before it is read.
        bias, bias_index: that bias, and its o positions; None without one.
    """

    name: str
    weight: str
    index: Int[Tensor, "o h"]
    gain: str | None = None
    gain_index: Int[Tensor, " h"] | None = None
    shift: str | None = None
    shift_index: Int[Tensor, " h"] | None = None
    bias: str | None = None
    bias_index: Int[Tensor, " o"] | None = None
    factor: float = 1.0

    def __str__(self) -> str:
        return f"{self.name} ({len(self.index)} rows)"

    @property
    def family(self) -> Family:
        """ "bias"."""
        return "bias"


@dataclass(frozen=True, eq=False)
class BatchNormMean:
    """A BatchNorm in eval mode: mean + d and shift + gain * d / sqrt(var + eps) are the same function, for any vector d.

    Attributes:
        name: the layer.
        mean, var, shift: names of its running mean, running variance and shift.
        gain: name of its gain.
        eps: added to the running variance.
        channels: how many it has.
    """

    name: str
    mean: str
    var: str
    shift: str
    gain: str
    eps: float
    channels: int

    def __str__(self) -> str:
        return f"{self.name}: {self.mean} and {self.shift} ({self.channels} channels)"

    @property
    def family(self) -> Family:
        """ "bias"."""
        return "bias"


Constant = Shift | Trade | Centring | BatchNormMean
