#!/usr/bin/env bash
# torch 2.13.0: one AdamW step turns a non-square orthogonal parametrization into the zero matrix.
#
# Seen: nn.utils.parametrizations.orthogonal on a layer that is not square uses Householder reflections, and keeps signs of +1 and
# -1 on the diagonal of the very tensor that is trained. They are read with `.int()`: after any step that makes them smaller than 1
# in size (weight decay does) they are 0, and so is the whole weight, with no error and no gradient to come back from.
# Output seen: "orthogonal before: True; all zero after one step: True". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

torch.manual_seed(0)
layer = orthogonal(nn.Linear(3, 5, bias=False))
x, before = torch.randn(4, 3), layer.weight.detach().clone()
optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=1e-2)
layer(x).square().sum().backward()
optimizer.step()
whole = torch.allclose(before.T @ before, torch.eye(3), atol=1e-5)
dead = bool((layer.weight == 0).all())
print(f"orthogonal before: {whole}; all zero after one step: {dead}")
assert whole and dead
PY
