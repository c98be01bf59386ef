"""What the columns of the page's tables and the names of symmetries mean, for its section "How to read it"."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

# The families of symmetries, by the names that marks and tables have.
FAMILIES = {
    "layer": "one layer times α > 0, the layers that read it divided by α",
    "node": "every neuron by its own factor, what reads it divided by that factor",
    "pair": "an invertible matrix between two linear maps with nothing between them, such as queries and keys",
    "rotation": "an orthogonal matrix on a stream that only normalizations and linear maps read",
    "norm-out": "gain and shift of a normalization by a factor a channel, what reads them divided by it",
    "norm-in": "weights before a normalization by a factor that it takes away",
    "shift": "a constant that a softmax or the mean of a LayerNorm takes away, or that another summand takes back",
    "bias": "a constant added to one bias and taken from the next one",
}

_SHORT = 400  # characters of the longest text that is searched for notations

# Columns of the tables, by section of the page: (heads that are explained together, what they hold).
COLUMNS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "summary": (
        (("measure", "unit"), "The quantity, by the name that --measures takes, and what it is measured in."),
        (
            ("fakeable by",),
            "Some changes of the weights keep the network's function. The column names those that this network has and that "
            "could have given the number, so compare it only between networks that are alike in them. no: proven to survive "
            "all that this network has. not known: a part of the network could not be read. every family but A: all of this "
            "list but A. all: every one of this list. All measures depend on the scale of the last layer: compare networks of "
            "similar training loss. The "
            "changes are:",
        ),
    ),
    "training": (
        (("step", "epoch", "checkpoint", "loss"), "When a check was made, and the loss of the probe batch then."),
        (("edge",), "The value above which the optimizer's steps diverge on a quadratic of that curvature."),
    ),
    "comparison": (
        (("quantity", "groups"), "What is compared, and which two groups: the first against the second."),
        (
            ("Cliff's δ",),
            "How often a run of the first group has the larger value, minus how often it has the smaller one: 1 always, "
            "0 as often, −1 never; with its 95 % interval.",
        ),
        (("ratio of medians",), "Median of the first group divided by that of the second, with its 95 % interval."),
        (
            ("p", "q"),
            "p: how often groups drawn at random from these runs differ so much or more. q: the same, adjusted for all tests "
            "of the table (Benjamini-Hochberg): of the findings with q ≤ 0.05, marked *, at most 5 % are expected to be false.",
        ),
        (
            ("AUC",),
            "How often a run that memorized has a larger value than one that did not: 1 always, 0.5 by chance.",
        ),
        (
            ("Kendall's τ",),
            "Agreement, from −1 to 1, of the rankings of all runs by the measure and by the generalization gap.",
        ),
        (("granulated Ψ",), "Kendall's τ over runs that differ in one hyperparameter only, averaged (Jiang et al. 2020)."),
        (("partial ρ",), "Rank correlation of measure and gap with the named quantities held fixed."),
        (
            ("worst sign error", "environment"),
            "In the setting where the measure does worst, named under environment, how often it orders two runs wrongly.",
        ),
    ),
    "spectrum": (
        (("eigenvalue", "end"), "An eigenvalue of the Hessian, and the end of the spectrum at which it lies."),
        (
            ("residual", "residual at most", "converged"),
            "A true one lies within the residual of the value; NO: the iteration ended before that was small.",
        ),
        (
            ("mean", "95 %", "quartiles", "range", "all samples"),
            "Of one eigenvalue over the mini-batches: mean, interval of the mean, the values below which a quarter, a half and "
            "three quarters of them lie, the smallest and the largest; and the same eigenvalue of all samples together.",
        ),
    ),
    "layers": (
        (("layer", "head", "weights"), "A part of the network, and how many weights it has."),
        (
            ("trace", "method (95 %)"),
            "Sum of the eigenvalues of the part's block of the Hessian, and the error of computing it.",
        ),
        (
            ("largest eigenvalue", "of top eigenvector"),
            "Of the part's own block; and the share of the whole Hessian's top eigenvector, squared, that lies in the part.",
        ),
    ),
    "samples": (
        (
            ("rank", "sample", "label", "predicted", "wrong"),
            "Place by the score marked with *, number in the data, its label, the network's answer, and whether the label is "
            "known to be wrong. The other columns are scores of that sample; how they are defined: landscape samples --help.",
        ),
    ),
    "information": (
        (("units", "estimator"), "Numbers of the layer's output, and how the information is estimated; bounds are named so."),
        (
            ("I(T;X) bits", "I(T;Y) bits", "from half"),
            "What the layer's output T tells about input X and label Y, in bits; and the same from half of the samples: "
            "where the two differ, there are too few.",
        ),
    ),
    "certificates": (
        (("claimed invariant",), "Whether the measure is claimed to survive this change of the weights."),
        (("α", "verdict"), "Size of factors and constants, with after / before of each measure; and the conclusion, as below."),
        (("condition number",), "That of the matrices of the change, with after / before of each measure."),
    ),
    "provenance": ((("entry",), "A setting, version or digest that the numbers depend on, and that another run needs."),),
}

# What stands in cells: how it is written, its meaning, and a pattern by which it is found.
_NOTATIONS = (
    ("a to b (n probes)", "95 % interval of a mean over n random probes (Student's t). More probes make it narrower.",
     r"\((\d|,)+ (probes|draws)\)"),
    ("± h", "Beside a value of a run: half of its 95 % interval over random probes.", r"^-?[\d.e+-]+ ± "),
    ("a to b (n samples)", "95 % interval of a mean over n data points, for its value on the population that they were drawn "
     "from (sampling error).", r"\((\d|,)+ samples\)|to .* sampling error"),
    ("sd s sampling error", "Standard deviation of the value over samples drawn anew, where there is no interval: of a "
     "maximum, which is biased upwards, and of a mean that a few samples carry, which are named by their number.", r"\bsd "),
    ("± r residual, or residual r", "An eigenvalue of the Hessian lies within r of the value. If the iteration did not "
     "converge, it may not be the largest one.", r" residual|residual \d"),
    ("≥ value, lower bound", "The largest value found by a maximisation. The maximum is at least this large; a longer search "
     "may find a larger value.", "lower bound"),
    ("exact on these samples", "The method is deterministic; its only error is rounding. Other samples would give another "
     "value.", "exact on these samples"),
    ("—", "No value; the reason is given below the dash.", "^—$"),
)  # fmt: skip


def notations(entries: Any) -> list[tuple[str, str]]:
    """(how it is written, meaning) of the notations that stand in cells of these entries.

    Args:
        entries: the page's entries: mappings, sequences and texts, of which long ones are pictures.

    Example:
        >>> [written for written, _ in notations({"rows": [["2.0", "lower bound (4 evaluations)"]]})]
        ['≥ value, lower bound']
    """
    found = list(_texts(entries))
    return [(written, words) for written, words, pattern in _NOTATIONS if any(re.search(pattern, text) for text in found)]


def _texts(entries: Any) -> Iterable[str]:
    """All short texts inside."""
    if isinstance(entries, str):
        if len(entries) < _SHORT:
            yield entries
    elif isinstance(entries, Mapping):
        for inside in entries.values():
            yield from _texts(inside)
    elif isinstance(entries, list | tuple):
        for inside in entries:
            yield from _texts(inside)


def explained(sections: Iterable[str]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(heads, meaning, names to list below) of every column of these sections' tables.

    Example:
        >>> [heads for heads, _, _ in explained(["summary"])]
        ['measure, unit', 'fakeable by']
    """
    return [
        (", ".join(heads), words, list(FAMILIES.items()) if "fakeable by" in heads else [])
        for section in sections
        for heads, words in COLUMNS[section]
    ]
