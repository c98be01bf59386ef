#!/usr/bin/env bash
# torch 2.14.1 (and 2.13.0), CPU, float64: torch.func.hessian of a network with a LayerNorm is silently wrong, and so is
# jacrev(jacrev(f)); jacrev(grad(f)) and torch.autograd.functional.hessian are right, and agree with differences of gradients.
# The error needs weights before the LayerNorm together with its own gain: with the input alone, or gain and shift alone,
# torch.func.hessian is right to rounding. GroupNorm and RMSNorm are right. No warning; the matrix found is not even symmetric.
# It matters: a reference Hessian for a transformer that is made the obvious way has wrong eigenvalues. Forward over reverse
# and a batched outer pullback go through the same rule; take jacrev(grad(f)), and look at the asymmetry.
#
# Seen on 2026-11-30, Linux, Python 3.11 (the same six numbers from 2.13.0):
#   2.14.1+cu130 off by: hessian 0.276, jacrev(jacrev) 0.276, jacrev(grad) 0.000, autograd 0.000; asymmetry 0.376
#   hessian off by: input alone 0.000, gain and shift alone 0.000, group norm 0.000, rms norm 0.000
# Fails if that changes. Downloads 3 GB; some minutes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy
found=$("$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.func import grad, hessian, jacrev
from torch.nn.functional import group_norm, layer_norm, rms_norm

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
x, c = torch.randn(5, 6), torch.randn(5, 6)
w, b = torch.rand(6) + 0.5, torch.randn(6)
whole = torch.cat([x.reshape(-1), w, b])


def f(v):
    return (layer_norm(v[:30].view(5, 6), (6,), v[30:36], v[36:]).pow(3) * c).sum()


def square(h, at):
    return h.reshape(at.numel(), at.numel())


def apart(h, right):
    return float((h - right).norm() / right.norm())


def other(name, g, at):
    return f"{name} {apart(square(hessian(g)(at), at), square(torch.autograd.functional.hessian(g, at), at)):.3f}"


step = 1e-5
right = torch.stack([(grad(f)(whole + step * e) - grad(f)(whole - step * e)) / (2 * step) for e in torch.eye(len(whole))])
ways = {
    "hessian": hessian(f)(whole), "jacrev(jacrev)": jacrev(jacrev(f))(whole), "jacrev(grad)": jacrev(grad(f))(whole),
    "autograd": torch.autograd.functional.hessian(f, whole),
}
h = ways["hessian"]
print(torch.__version__, "off by:", ", ".join(f"{n} {apart(m, right):.3f}" for n, m in ways.items()) + f"; asymmetry {apart(h.T, h):.3f}")
print("hessian off by:", ", ".join([
    other("input alone", lambda v: (layer_norm(v, (6,), w, b).pow(3) * c).sum(), x),
    other("gain and shift alone", lambda v: (layer_norm(x, (6,), v[:6], v[6:]).pow(3) * c).sum(), whole[30:]),
    other("group norm", lambda v: (group_norm(v[:30].view(5, 6, 1), 2, v[30:36], v[36:])[..., 0].pow(3) * c).sum(), whole),
    other("rms norm", lambda v: (rms_norm(v[:30].view(5, 6), (6,), v[30:36]).pow(3) * c).sum(), whole[:36]),
]))
PYTHON
)
echo "$found"
[[ "$found" == 2.14.1*"hessian 0.276, jacrev(jacrev) 0.276, jacrev(grad) 0.000, autograd 0.000; asymmetry 0.376"*"input alone 0.000, gain and shift alone 0.000, group norm 0.000, rms norm 0.000" ]]
