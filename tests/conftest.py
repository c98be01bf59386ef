"""Shapes in annotations are checked while testing. One thread: networks are tiny here, and a second one would only spin."""

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
hook = install_import_hook(
    ["landscape.parameters", "landscape.losses", "landscape.curvature", "landscape.linalg"], "beartype.beartype"
)
hook.__enter__()
