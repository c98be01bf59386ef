#!/usr/bin/env bash
# torch 2.14.1: a Hessian by torch.func.jacrev(torch.func.grad(f)) through BatchNorm with batch statistics comes out with
# requires_grad=True, although no tensor that went in requires gradients. Its values are right (double backward agrees to
# 1e-13). torch 2.13.0 returns a plain tensor, and so do hessian() and jacfwd(grad) in 2.14.1, and LayerNorm, and BatchNorm in
# eval mode.
# It matters: .numpy() raises, every kept Hessian keeps its graph in memory, and a backward pass through it raises "batch_norm
# does not support 3rd+ order derivatives" far from the cause. Call .detach() on what comes out.
#
# Seen on 2026-11-30, Linux, Python 3.11:
#   2.14.1+cu130 jacrev requires_grad True, hessian False, eval False
# 2.13.0 gives False three times. Fails if that changes. Downloads 3 GB; some minutes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy
found=$("$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev

torch.manual_seed(0)
x = torch.randn(16, 4, dtype=torch.float64)


def pieces(norm):
    net = nn.Sequential(nn.Linear(4, 3), norm).double()
    weights = {k: v.detach() for k, v in net.named_parameters()}
    return (lambda w: functional_call(net, w, (x,)).pow(3).sum()), weights


f, w = pieces(nn.BatchNorm1d(3, track_running_stats=False))
assert not any(v.requires_grad for v in w.values())
found = jacrev(grad(f))(w)["0.weight"]["0.weight"]
forward = hessian(f)(w)["0.weight"]["0.weight"]
q = {k: v.clone().requires_grad_() for k, v in w.items()}
(first,) = torch.autograd.grad(f(q), q["0.weight"], create_graph=True)
rows = [torch.autograd.grad(e, q["0.weight"], retain_graph=True)[0] for e in first.reshape(-1)]
apart = (torch.stack(rows).reshape(found.shape) - found).abs().max().item()
g, v = pieces(nn.BatchNorm1d(3).eval())
evaluated = jacrev(grad(g))(v)["0.weight"]["0.weight"]
assert apart < 1e-12
print(torch.__version__, "jacrev requires_grad", f"{found.requires_grad}, hessian {forward.requires_grad}, eval {evaluated.requires_grad}")
PYTHON
)
echo "$found"
[[ "$found" == 2.14.1*"jacrev requires_grad True, hessian False, eval False" ]]
