"""The families of changes of the weights that keep the function, by their names on the command line and in the JSON."""

from typing import Literal, get_args

Family = Literal["layer", "node", "pair", "rotation", "norm-out", "norm-in", "shift", "bias"]

FAMILIES: dict[Family, str] = {
    "layer": "one layer times alpha, the layers that read it divided by alpha",
    "node": "every neuron by its own factor, what reads it divided by that factor",
    "pair": "an invertible matrix between two linear maps with nothing between them: queries and keys, values and output, LoRA",
    "rotation": "an orthogonal matrix on a stream that only LayerNorm or RMSNorm and linear maps read",
    "norm-out": "gain and shift of a normalization by a factor a channel, what reads them divided by it",
    "norm-in": "weights before a normalization by a factor that it takes away; nearly, because of its eps",
    "shift": "a constant that a softmax or the mean of a LayerNorm takes away, or that another summand takes back",
    "bias": "a constant added to one bias, or to a row of weights after a LayerNorm, and taken from the next bias",
}
# Those that multiply every weight by a factor.
FACTORS: tuple[Family, ...] = ("layer", "node", "norm-out", "norm-in")
# Those that apply a matrix.
MATRICES: tuple[Family, ...] = ("pair", "rotation")
# Those that add a constant.
CONSTANTS: tuple[Family, ...] = ("shift", "bias")

assert set(FAMILIES) == set(get_args(Family))
