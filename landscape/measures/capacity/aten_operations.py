"""ATen operations, grouped by their effect on a sum over paths and on the scale of an activation."""

RECTIFIERS = ("relu", "leaky_relu", "prelu")

COPIES = (
    "clone", "contiguous", "detach", "alias", "to", "_to_copy", "type_as", "neg", "positive", "dropout", "feature_dropout",
)  # fmt: skip

POOLINGS = (
    *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)),
    "max_pool2d_with_indices", "max_pool3d_with_indices", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
)  # fmt: skip

REDUCTIONS = ("sum", "mean", "amax", "max", "maximum")

# Every element of the result is an element of the inputs, or zero padding.
MOVES = (
    "view", "_unsafe_view", "reshape", "view_as", "permute", "transpose", "t", "numpy_T", "mT", "movedim", "squeeze",
    "unsqueeze", "flatten", "unflatten", "expand", "expand_as", "repeat", "tile", "repeat_interleave", "slice", "select",
    "narrow", "split", "split_with_sizes", "chunk", "unbind", "cat", "concat", "stack", "flip", "roll", "index",
    "index_select", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "slice_scatter", "select_scatter",
    "constant_pad_nd", "pad", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
)  # fmt: skip

LINEAR = (
    "linear", "matmul", "mm", "bmm", "einsum", "addmm", "convolution",
    *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)),
)  # fmt: skip

BATCH_NORM = ("batch_norm", "_native_batch_norm_legit_no_training")

# Not homogeneous. Powers are homogeneous, so they are not listed: a factor s of x becomes s^2 of x^2.
BOUNDED = (
    "gelu", "silu", "mish", "elu", "tanh", "sigmoid", "softplus", "log_sigmoid", "softmax", "_softmax", "log_softmax",
    "_log_softmax", "hardtanh", "hardswish", "hardsigmoid", "clamp", "clamp_min", "clamp_max", "threshold",
)  # fmt: skip

# Operations that only query a shape or a dtype.
QUESTIONS = ("sym_size", "sym_numel", "sym_stride", "_assert_tensor_metadata")
