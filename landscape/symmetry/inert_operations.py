"""Operations that are known to keep no factor, matrix or constant; any other needs a rule, or counts as not read."""

INERT = frozenset(
    """
    elu selu celu gelu silu mish softplus softsign sigmoid log_sigmoid log_sigmoid_forward tanh hardtanh hardswish hardsigmoid
    hardshrink softshrink tanhshrink relu6 erf
    sign sgn round floor ceil trunc argmax argmin
    eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not isnan isinf isfinite
    any all
    """.split()  # noqa: SIM905  # a list of fifty quoted names is harder to read
)
"""Names of ATen operations without their overload: activations, steps and comparisons."""

RECTIFYING = frozenset("relu leaky_relu prelu rrelu abs threshold clamp clamp_min clamp_max".split())  # noqa: SIM905
"""Operations that keep a positive factor at most."""

NO_FACTOR = frozenset("softmax _softmax _safe_softmax log_softmax _log_softmax logsumexp".split())  # noqa: SIM905
"""Operations that keep no factor, but may ignore a constant."""

LINEAR_OVER_POSITIONS = frozenset(
    """
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa
    """.split()  # noqa: SIM905
)
"""Operations that average over the last axes and treat every channel alike."""

LARGEST_OVER_POSITIONS = frozenset(
    """
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d
    """.split()  # noqa: SIM905
)
"""Operations that take a maximum over the last axes: a constant passes, a matrix does not."""

SHAPE_ONLY = frozenset(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty
    """.split()  # noqa: SIM905
)
"""Operations that use only the shape of their input."""
