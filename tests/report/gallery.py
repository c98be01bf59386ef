"""Draws every kind of figure into a folder, to be looked at: `python tests/report/gallery.py FOLDER`."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import report_examples as examples

from landscape.report import figure_files
from landscape.report.figures import titled
from landscape.report.figures.information import figure_information
from landscape.report.over_training.watched import figure_watched
from landscape.results import Estimate, RandomAxes
from landscape.results.surfaces.random_axes import RandomAxis


def slices():
    """(name, figure) of what slices carry besides their values."""
    from test_drawn_minima import valleys
    from test_drawn_quantities import A, line_of, plane_of
    from test_drawn_tracks import path
    from test_previews import level, unfinished

    marks = path(3, label="checkpoints", names=("sgd", "adam", "a long name of a run"), path=False)
    yield "tracks", titled.figure_slice(examples.plane(tracks=(path(), marks)))
    far = path(coordinates=path().coordinates * 1.7, label="another run")
    yield "tracks_outside", titled.figure_slice(examples.plane(tracks=(path(), far)))
    flat = replace(path(), coordinates=path().coordinates[:, :1])
    paired = {k: 0.4 * v for k, v in examples.line().stderr.items()}
    yield "line_bands_tracks", titled.figure_slice(replace(examples.line(), paired=paired, tracks=(flat,)))
    yield "minima", titled.figure_slice(valleys())
    yield "merge_tree", titled.figure_merge_tree(valleys())
    yield "preview", titled.figure_slice(unfinished(level(), tracks=(path(),)))
    yield "preview_part", titled.figure_slice(unfinished(np.arange(21)[:, None] + 0 * np.arange(21) < 9))
    yield "nothing", titled.figure_slice(unfinished(np.zeros((9, 9), bool)))
    residuals = {"lambda_min": np.full(21, 0.1)}
    yield "line_lambda_min", titled.figure_slice(line_of("lambda_min", A**2 - 0.3, stderr=residuals), quantity="lambda_min")
    signed = plane_of("lambda_min", lambda u, v: 0.3 * u - 0.8 * v**2)
    yield "lambda_min", titled.figure_slice(signed, quantity="lambda_min")
    yield "lambda_min_3d", titled.figure_slice(signed, quantity="lambda_min", view="3d")
    ratio = plane_of("lambda_ratio", lambda u, v: 10.0 ** (2 * u + v - 3))
    yield "lambda_ratio", titled.figure_slice(ratio, quantity="lambda_ratio")


WIDE = "A-RUN-WITH-A-LONG-NAME-IN-WIDE-CAPITALS-MMMWWW"


def wide():
    """(name, figure) of what is widest: a saddle that hides, and names in capitals."""
    from test_drawn_lines import flat_beside_test

    plane = examples.plane(9, 9)
    error = Estimate(0.361, 0.03, "t", 64)
    axes = {str(i): RandomAxis(0.405, replace(error, value=0.418), 0.05, 22.6) for i in (1, 2)}
    low, high = Estimate(-0.024, 1e-6, "residual", 56), Estimate(1.9, 1e-6, "residual", 56)
    hidden = replace(plane.check, random=RandomAxes(axes, 0.3, low, high))
    said = {"checkpoint": f"{WIDE}.pt", "task": WIDE, "split": "train", "samples": 1347, "axis_lengths": [22.6, 22.6]}
    saddle = replace(plane, check=hidden, provenance=said, title=f"Loss on a plane through {WIDE} and {WIDE}")
    for view in ("contour", "3d"):
        yield f"wide_{view}", titled.figure_slice(saddle, view=view)
    yield "wide_line", titled.figure_slice(replace(examples.line(), provenance=said, title=WIDE, axes=(f"from {WIDE}",)))
    yield "wide_path", titled.figure_interpolation(flat_beside_test(), ends=(WIDE, f"{WIDE}-2"), title=f"From {WIDE} to {WIDE}")
    yield "own_panels", titled.figure_interpolation(flat_beside_test())
    groups = {f"{WIDE}-{i}": [examples.sharpness(f"a{i}{j}", 1.0 + i, j) for j in range(3)] for i in range(2)}
    yield "wide_measures", titled.figure_measures(groups, measures=["trace", "keskar"])


def others():
    """(name, figure) of the other results."""
    from test_captions import BOTH, LAYERS
    from test_drawn_comparisons import compared
    from test_drawn_samples import scores

    yield from wide()
    yield "breakdown", titled.figure_breakdown(LAYERS, [replace(LAYERS[0], filter=i) for i in range(3)])
    yield "breakdown_one", titled.figure_breakdown(LAYERS[:1], provenance=examples.PROVENANCE)
    yield "minibatches", titled.figure_minibatch_spectra(examples.minibatches(), provenance=examples.PROVENANCE)
    yield "samples", titled.figure_samples(scores())
    yield "sample_images", titled.figure_samples(scores(np.random.default_rng(0).random((3, 1, 8, 8))))
    yield "certificate_panels", titled.figure_certificate(BOTH)
    yield "separation", titled.figure_separation(compared(3))
    yield "watched", figure_watched(examples.watched())
    yield "information", figure_information(examples.bits())


def pictures():
    """(name, figure) of everything this room draws."""
    yield (
        "density_linear",
        titled.figure_density(examples.density(), eigenpairs=examples.eigenpairs(), provenance=examples.PROVENANCE),
    )
    yield "density_log", titled.figure_density(examples.density("log"), provenance=examples.PROVENANCE)
    yield "eigenvalues", titled.figure_eigenvalues(examples.eigenpairs(), provenance=examples.PROVENANCE)
    yield "eigenvalues_both", titled.figure_eigenvalues(examples.eigenpairs("both", 10))
    yield "line", titled.figure_slice(examples.line())
    yield "line_loss_only", titled.figure_slice(examples.line(test=False, accuracy=False, steep=0.4))
    yield "line_accuracy", titled.figure_slice(examples.line(), quantity="accuracy")
    broken = examples.line(test=False)
    broken.values["loss"][[0, 1, 50]] = np.nan, np.inf, np.inf
    yield "line_broken", titled.figure_slice(broken)
    yield "plane_log", titled.figure_slice(examples.plane())
    yield "plane_accuracy", titled.figure_slice(examples.plane(), quantity="accuracy")
    yield "plane_linear", titled.figure_slice(examples.plane(function=lambda u, v: 1 + u + 0.4 * v + 0.8 * v**2))
    yield "plane_unequal", titled.figure_slice(examples.plane(31, 11, ((-1, 1), (-0.25, 0.25))))
    holes = examples.plane(25, 25)
    loss = np.ma.MaskedArray(holes.values["loss"].copy())
    loss[20:, 21:] = np.inf
    loss[3, 4] = np.nan
    loss[:4, 22:] = np.ma.masked
    yield "plane_holes", titled.figure_slice(replace(holes, values={"loss": loss}))
    yield "plane_all_nan", titled.figure_slice(examples.plane(function=lambda u, v: np.nan * u * v))
    yield "plane_decades", titled.figure_slice(examples.plane(function=lambda u, v: np.exp(14 * (u**2 + v**2)) * 1e-3))
    yield "surface", titled.figure_slice(examples.plane(), view="3d")
    yield "surface_linear", titled.figure_slice(examples.plane(function=lambda u, v: 1 + u + 0.4 * v + 0.8 * v**2), view="3d")
    yield "surface_holes", titled.figure_slice(replace(holes, values={"loss": loss}), view="3d")
    yield from slices()
    yield "interpolation", titled.figure_interpolation(examples.interpolation(), ends=("small batch", "large batch"))
    single = examples.interpolation()
    yield (
        "interpolation_loss",
        titled.figure_interpolation(replace(single, values={"loss": single.values["loss"]}), ends=("A", "B")),
    )
    alphas = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    yield "certificate", titled.figure_certificate([(a, examples.certificate(a)) for a in alphas])
    yield (
        "certificate_broken",
        titled.figure_certificate([(a, examples.certificate(a, "relative_flatness")) for a in (1.0, 2.0, 5.0)]),
    )
    yield "certificate_single", titled.figure_certificate([(5.0, examples.certificate(5.0))])
    yield "measures", titled.figure_measures(examples.groups())
    yield (
        "measures_two",
        titled.figure_measures(dict(list(examples.groups().items())[:2]), measures=["accuracy", "trace", "keskar"]),
    )
    yield "measures_one", titled.figure_measures({"final": [examples.sharpness()]}, measures=["trace"])
    from test_drawn_comparisons import compared

    yield "comparison_measures", titled.figure_measures(compared(2).groups, comparison=compared(2))
    yield "comparison_effects", titled.figure_effects(compared(3))
    yield "comparison_effects_two", titled.figure_effects(compared(2))
    yield "comparison_correlations", titled.figure_correlations(compared(3))
    yield from others()
    yield "history", titled.figure_history(examples.history(), provenance=examples.PROVENANCE)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures():
        print(name, end=" ", flush=True)
        print(*figure_files.save(figure, folder / name))
