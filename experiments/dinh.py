"""Dinh et al. 2017 (arXiv:1703.04933): the same function, any sharpness; and the measures that no rescaling moves.

One trained perceptron, rescaled by five values of alpha, layer-wise and neuron-wise, in float64.
"""

import time

import torch

import landscape as ls
from experiments.common import FIGURES, arguments, run, write
from landscape.report import figure_certificate, save

ALPHAS = (0.1, 0.3, 3.0, 10.0, 30.0)

if __name__ == "__main__":
    options, started = arguments(__doc__), time.perf_counter()
    task = ls.load(run("small-batch", 0, options.runs))
    model = task.model.double()
    objective = task.objective(samples=512, dtype="float64")
    found = {}
    for node in (False, True):
        kind = "node" if node else "layer"
        certificates = []
        for alpha in ALPHAS:
            bound = max(alpha, 1 / alpha) if node else alpha
            other = ls.rescale(model, bound, node=node, generator=torch.Generator().manual_seed(round(10 * alpha)))
            certificates.append((alpha, ls.certificate(objective, other, symmetry=kind)))
            print(f"{kind}-wise, alpha {alpha}\n{certificates[-1][1]}\n", flush=True)
        found[kind] = [{"alpha": a, **c.to_json()} for a, c in certificates]
        save(
            figure_certificate(certificates, title=f"One function, rescaled {kind}-wise"),
            FIGURES / f"dinh-{kind}",
            formats=("png",),
        )
    write("dinh", {"samples": objective.samples, **found}, started)
