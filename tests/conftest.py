"""Shapes in annotations are checked while testing; threads are few, so that timings and results do not wander."""

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(2)
hook = install_import_hook(
    ["landscape.parameters", "landscape.losses", "landscape.curvature", "landscape.linalg"], "beartype.beartype"
)
hook.__enter__()
