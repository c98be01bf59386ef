"""Shapes in annotations are checked while testing. One thread: networks are tiny here, and a second one would only spin."""

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# The same examples at every run, and no deadline: machines are noisy.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

# A doctest run would import every conftest under one name.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

hook = install_import_hook(
    ["landscape.parameters", "landscape.losses", "landscape.curvature", "landscape.linalg"], "beartype.beartype"
)
hook.__enter__()
