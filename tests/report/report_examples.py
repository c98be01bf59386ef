"""Results made by hand from closed formulas, for the tests and the gallery of this room. None of them was measured."""

from dataclasses import replace

import numpy as np

from landscape.results import (
    Barrier,
    Certificate,
    CertificateRow,
    Check,
    Derivatives,
    Eigenpairs,
    Estimate,
    Information,
    LayerInformation,
    Measurement,
    MinibatchSpectra,
    MutualInformation,
    NormRatios,
    PathCheck,
    Sampling,
    Sharpness,
    Slice,
    SliceCheck,
    SpectralDensity,
    WatchHistory,
)

PROVENANCE = {
    "checkpoint": "runs/clean-b16/final.pt",
    "task": "digits-mlp",
    "split": "train",
    "seed": 0,
    "samples": 1347,
    "dtype": "float32",
    "device": "cpu",
    "landscape": "0.1.0",
    "torch": "2.13.0",
}


def density(scale="linear", probes=8, dim=17_226):
    """A bulk at zero, a tail, and nine outliers between 1 and 12, smoothed; nodes scattered around their true places."""
    rng = np.random.default_rng(0)
    outliers = np.array([1.0, 1.3, 1.9, 2.4, 3.1, 4.4, 5.5, 7.0, 12.0])
    nodes = np.concatenate([np.linspace(-0.6, 0.8, 20), outliers])
    bulk = np.exp(-((np.linspace(-0.6, 0.8, 20) / 0.12) ** 2)) + 2e-4
    weights = np.concatenate([bulk / bulk.sum() * (1 - 9 / dim), np.full(9, 1 / dim)])
    all_nodes = nodes + rng.normal(0, 0.01, (probes, len(nodes)))
    all_weights = weights * rng.lognormal(0, 0.3, (probes, len(nodes)))
    all_weights /= all_weights.sum(axis=1, keepdims=True)
    if scale == "log":
        linthresh = 1e-2
        top = np.arcsinh(15 / linthresh)
        grid = linthresh * np.sinh(np.linspace(-0.6 * top, top, 801))
        sigma = 0.25 * np.sqrt(grid**2 + linthresh**2)
    else:
        linthresh, grid = None, np.linspace(-1.5, 13.5, 801)
        sigma = np.full(801, 0.06)
    kernel = np.exp(-0.5 * ((grid[:, None, None] - all_nodes) / sigma[:, None, None]) ** 2)
    each = (kernel * all_weights).sum(axis=2) / (sigma[:, None] * np.sqrt(2 * np.pi))
    mean, half = each.mean(axis=1), 2.36 * each.std(axis=1, ddof=1) / np.sqrt(probes)
    return SpectralDensity(
        grid,
        mean,
        np.maximum(mean - half, 0),
        mean + half,
        all_nodes,
        all_weights,
        sigma,
        scale,
        linthresh,
        dim,
        probes * len(nodes),
    )


def eigenpairs(which="largest", k=8):
    """Geometric eigenvalues; the last one did not converge."""
    if which == "both":
        values = np.concatenate([12.0 * 0.75 ** np.arange(k), -0.8 * 0.8 ** np.arange(k)[::-1]])
    else:
        values = 12.0 * 0.75 ** np.arange(k)
    residuals = np.full(len(values), 3e-5)
    converged = np.ones(len(values), bool)
    residuals[k - 1], converged[k - 1] = 0.4, False
    return Eigenpairs(values, np.zeros((len(values), 3)), residuals, converged, 64, which)


def line(*, test=True, accuracy=True, n=51, steep=6.0):
    """A bowl with its minimum at 0 and a wall on the right."""
    a = np.linspace(-1, 1, n)
    loss = 0.011 + steep * a**2 + 2.0 * np.maximum(a, 0) ** 3
    values, stderr = {"loss": loss}, {"loss": 0.06 * loss}
    if test:
        values["test_loss"] = 0.09 + 1.1 * loss
        stderr["test_loss"] = 0.1 * loss
    if accuracy:
        values["accuracy"] = 0.1 + 0.9 * np.exp(-3 * a**2)
        stderr["accuracy"] = np.sqrt(values["accuracy"] * (1 - values["accuracy"]) / 1347)
        if test:
            values["test_accuracy"] = 0.1 + 0.86 * np.exp(-3.3 * a**2)
            stderr["test_accuracy"] = np.sqrt(values["test_accuracy"] * (1 - values["test_accuracy"]) / 450)
    derivatives = Derivatives({"11": 2 * steep}, {"11": 2 * steep}, loss=0.011, slope_error=1e-9)
    check = SliceCheck(None, (NormRatios("filter", 1.0, 1.0, 26),), True, 0.011, True, derivatives, recomputed=0.0)
    return Slice(("random, seed 0, filter norm",), (a,), values, stderr, check, "Loss along one direction", PROVENANCE)


def plane(nx=41, ny=41, spans=((-1, 1), (-1, 1)), function=None, **changes):
    """An asymmetric bowl: f(x, y) is another function than f(y, x) and f(-x, y)."""
    x, y = np.linspace(*spans[0], nx), np.linspace(*spans[1], ny)
    function = function or (lambda u, v: 0.012 + 4 * (u - 0.1 * v) ** 2 + 1.2 * v**2 + 1.5 * np.maximum(v, 0) ** 3 + u * v**2)
    loss = function(x[:, None], y[None, :])
    values = {"loss": loss, "accuracy": 0.1 + 0.9 * np.exp(-loss)}
    check = SliceCheck(
        0.0031, (NormRatios("filter", 0.999999, 1.000001, 26),) * 2, True, 0.012, True,
        Derivatives({"11": 8.0, "12": -0.8, "22": 2.48}, {"11": 8.001, "12": -0.7998, "22": 2.479}, {}, 0.012, 1e-9),
        recomputed=0.0,
    )  # fmt: skip
    names = ("random, seed 0, filter norm", "random, seed 1, filter norm")
    content = {"axes": names, "coordinates": (x, y), "values": values, "stderr": {}, "check": check}
    return Slice(**(content | {"title": "Loss surface around clean-b16", "provenance": PROVENANCE} | changes))


def interpolation():
    """Two minima at 0 and 1 with a hill between them, the right one sharper; from -0.5 to 1.5."""
    a = np.linspace(-0.5, 1.5, 41)
    loss = 0.02 + 2.1 * (1 - np.exp(-3 * a**2)) * (1 - np.exp(-12 * (a - 1) ** 2))
    acc = 0.1 + 0.9 * np.exp(-1.2 * loss)
    values = {"loss": loss, "test_loss": 0.1 + 1.2 * loss, "accuracy": acc, "test_accuracy": 0.96 * acc}
    stderr = {k: np.full(41, 0.01 if "acc" in k else 0.02) for k in values}
    barriers = {}
    for k, y in values.items():
        sign, ends = (-1 if "acc" in k else 1), float(y[[10, 30]].mean())
        top = 10 + int(np.argmax(sign * y[10:31]))
        barriers[k] = Barrier(sign * (float(y[top]) - ends), 0.02, float(a[top]), ends)
    derivatives = Derivatives({"11": -3.0}, {"11": -3.001}, loss=1.2, slope_error=1e-9)
    check = PathCheck((float(loss[10]), float(loss[30])), (True, True), 0.0, 0.382, derivatives)
    return Slice(
        ("from small batch to large batch",),
        (a,),
        values,
        stderr,
        check,
        "From the small-batch to the large-batch minimum",
        PROVENANCE,
        barriers,
        path=True,
    )


UNITS = {
    "lambda_max": ("loss / weight^2", ()),
    "lambda_min": ("loss / weight^2", ()),
    "trace": ("loss / weight^2", ()),
    "frobenius": ("loss / weight^2", ()),
    "keskar": ("100 x relative loss increase", ()),
    "keskar_subspace": ("100 x relative loss increase", ()),
    "adaptive_trace": ("loss", ("layer", "node")),
    "adaptive_lambda_max": ("loss", ("layer", "node")),
    "relative_flatness": ("loss", ("layer",)),
}


def certificate(alpha, broken=None):
    """What theory says of T_alpha for two layers with tr H11 = 3, tr H22 = 5; keskar is not comparable beyond alpha = 8."""
    moves = {
        "lambda_max": max(1.4 / alpha**2, 1.2 * alpha**2) / 1.4,
        "lambda_min": 1 / alpha,
        "trace": (3 / alpha**2 + 5 * alpha**2) / 8,
        "frobenius": np.sqrt((2 / alpha**4 + 3 * alpha**4) / 5),
        "keskar": alpha**1.5,
        "keskar_subspace": alpha**1.45,
        "adaptive_trace": 1 + 1e-7 * np.sin(alpha),
        "adaptive_lambda_max": 1.0,
        "relative_flatness": 1.0,
    }
    rows = []
    for name, ratio in moves.items():
        claimed = bool(UNITS[name][1])
        verdict = "invariant" if claimed else "moved" if abs(ratio - 1) > 1e-3 else "unmoved here"
        if name == broken:
            ratio, verdict = 1.5, "CLAIM BROKEN"
        before = 2.5
        after = Estimate(before * ratio, 1e-3, "residual", 40)
        if name == "keskar" and alpha > 8:
            after, verdict = Estimate(before * ratio, converged=False, reason="stopped early"), "not comparable"
        rows.append(CertificateRow(name, Estimate(before, 1e-3, "residual", 40), after, claimed, verdict))
    return Certificate(
        tuple(rows), "layer", 3.2e-14, 18.4, True, 1347, {"fc1": (alpha, alpha), "fc2": (1 / alpha, 1 / alpha)}, PROVENANCE
    )


def sharpness(label="clean-b16", factor=1.0, seed=0, lost=None):
    """A full table of measures; `lost` becomes not finite, keskar_subspace did not converge."""
    rng = np.random.default_rng([seed, round(1000 * factor)])
    base = dict(zip(UNITS, (1.5, -0.12, 8.2, 2.1, 28.0, 2.2, 0.9, 0.2, 13.0), strict=True))
    kinds = {"trace": "t", "frobenius": "t", "adaptive_trace": "t", "keskar": "lower bound", "keskar_subspace": "lower bound"}
    measures = {}
    for name, value in base.items():
        value = value * factor * rng.lognormal(0, 0.12)
        kind = kinds.get(name, "residual")
        estimate = Estimate(value, None if kind == "lower bound" else 0.05 * abs(value), kind, 64)
        if name == lost:
            estimate = Estimate(np.nan, None, kind, 64, False, "the loss became infinite at the first step")
        elif name == "keskar_subspace":
            estimate = Estimate(value, None, kind, 10, False, "stopped after 10 iterations")
        unit, invariant = UNITS[name]
        if name == "trace":
            estimate = replace(estimate, data_stderr=0.4, sampling=Sampling(0.4, 1347, skew=3.0, carried_by=230.0, floor=0.0))
        measures[name] = Measurement(
            estimate, unit, invariant, 128, 1.25, survives=invariant, unknown=(),
            fakeable_by=tuple(family for family in ("layer", "node") if family not in invariant),
        )  # fmt: skip
    return Sharpness(
        Estimate(0.0103, 0.0011, "samples", 1347),
        Estimate(0.998, 0.0012, "samples", 1347),
        measures,
        1347,
        f"runs/{label}/final.pt",
        f"{abs(hash((seed, factor))):064x}"[:64],
        "digits-mlp",
        PROVENANCE | {"checkpoint": f"runs/{label}/final.pt"},
    )


def groups():
    """Four kinds of training, three seeds each."""
    factors = {"clean, batch 16": 1.0, "clean, full batch": 4.0, "40 % corrupted": 9.0, "random labels": 30.0}
    return {
        g: [sharpness(f"{g}-{s}", f, s, "frobenius" if (s, f) == (1, 9.0) else None) for s in range(3)]
        for g, f in factors.items()
    }


def history():
    """Two runs: clean labels are learned fast, random ones late and without any gain on the test set."""
    e = np.arange(1, 61)
    clean = {"epoch": e, "train_loss": 2.3 * np.exp(-e / 6) + 0.01, "test_loss": 2.2 * np.exp(-e / 6) + 0.12}
    noise = {"epoch": e, "train_loss": 2.3 / (1 + np.exp((e - 35) / 5)) + 0.01, "test_loss": 2.3 + 0.06 * e}
    clean |= {"train_accuracy": 1 - 0.9 * np.exp(-e / 6), "test_accuracy": 0.96 - 0.86 * np.exp(-e / 6)}
    noise |= {"train_accuracy": 1 - 0.9 / (1 + np.exp((e - 33) / 5)), "test_accuracy": np.full(60, 0.1)}
    return {"clean": clean, "random labels": noise}


def minibatches():
    """Eight mini-batches with known eigenvalues."""
    large, small = np.linspace(2, 9, 8), np.linspace(-1, 0.5, 8)
    return MinibatchSpectra(
        16, 128, large, small, np.full((8, 2), 1e-6), np.ones((8, 2), bool), Estimate(4.0), Estimate(-0.1), 400
    )


def watched():
    """A run that crosses its edge at the third check."""
    values = (5.0, 20.0, 60.0, 51.0)
    checks = [Check(100 * i, 2.0 / (i + 1), {"lambda_max": Estimate(v, 1e-4, "residual", 20)}, {"lambda_max": 50.0}, 0.1)
              for i, v in enumerate(values)]  # fmt: skip
    return WatchHistory(tuple(checks), {"lambda_max": "loss / weight^2"}, "SGD, lr 0.04", provenance={"samples": 1024})


def bits():
    """Two layers by one estimator."""
    rows = [LayerInformation(f"relu{i}", 64, "kde_lower", MutualInformation(5.0 - i, 3.0), MutualInformation(4.5 - i, 2.9))
            for i in (1, 2)]  # fmt: skip
    return Information(tuple(rows), 256, 3.3, {"noise": 1e-3})
