"""Operations of one kind, whose rules are the same. Any that is in no kind needs a rule of its own, or counts as not read."""

INERT = frozenset(
    """
    elu selu celu gelu silu mish softplus softsign sigmoid log_sigmoid log_sigmoid_forward tanh hardtanh hardswish hardsigmoid
    hardshrink softshrink tanhshrink relu6 erf
    sign sgn round floor ceil trunc
    logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not isnan isinf isfinite
    any all
    """.split()  # noqa: SIM905  # a list of fifty quoted names is harder to read
)
"""Operations that keep no factor, matrix or constant: activations and steps. ATen names without their overload."""

COMPARISONS = frozenset("eq ne lt le gt ge".split())  # noqa: SIM905
"""Comparisons, which keep what both sides have in common."""

RECTIFYING = frozenset("relu leaky_relu prelu rrelu abs threshold clamp clamp_min clamp_max".split())  # noqa: SIM905
"""Operations that keep a positive factor at most."""

NO_FACTOR = frozenset("softmax _softmax _safe_softmax log_softmax _log_softmax logsumexp".split())  # noqa: SIM905
"""Operations that keep no factor, but may ignore a constant."""

AVERAGES = (
    *(f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg", "_adaptive_avg") for n in (1, 2, 3)),
    *(f"upsample_{kind}" for kind in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
    *(f"{prefix}{n}d" for prefix in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
"""Operations that average over the last axes and treat every channel alike."""

MAXIMA = (
    *(f"{kind}_pool{n}d" for kind in ("max", "adaptive_max") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
)
"""Operations that take a maximum over the last axes: a constant and a factor pass, a matrix does not."""

SHAPE_ONLY = frozenset(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty
    """.split()  # noqa: SIM905
)
"""Operations that use only the shape of their input."""
