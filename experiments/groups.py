"""Groups of runs measured, compared and drawn: the body of the scripts that compare ways of training."""

import time

import landscape as ls
from experiments.common import FIGURES, arguments, measured, run, write
from landscape.measures import MEASURES
from landscape.report import figure_correlations, figure_effects, figure_measures, save

# The usual measures, and of the families that no rescaling moves one each.
NAMES = [m.name for m in MEASURES.values() if m.default]
NAMES += ["keskar_relative", "asam", "adaptive_average_l2", "pac_bayes_magnitude", "fisher_rao", "path_norm", "input_margin"]


def study(name: str, description: str, recipes: list[str], title: str) -> None:
    """Train `--seeds` runs of each recipe, measure all, compare, write results and figure."""
    options, started = arguments(description), time.perf_counter()
    groups: dict = {}
    gaps: dict = {}
    accuracies: dict = {}
    for recipe in recipes:
        for seed in range(options.seeds):
            result, fitted, unseen = measured(run(recipe, seed, options.runs), NAMES)
            groups.setdefault(recipe, []).append(result)
            gaps.setdefault(recipe, []).append(fitted - unseen)
            accuracies.setdefault(recipe, []).append({"seed": seed, "train": fitted, "test": unseen})
            print(f"{recipe} seed {seed}: train {fitted:.4f}, test {unseen:.4f}", flush=True)
    comparison = ls.compare(groups, gaps)
    for row in comparison.rows():
        print("  ".join(f"{cell:<28}" for cell in row))
    for row in (*comparison.difference_rows(), *comparison.correlation_rows()):
        print("  ".join(f"{cell:<28}" for cell in row))
    for remark in comparison.remarks:
        print("note:", remark)
    save(figure_measures(groups, title=title), FIGURES / name, formats=("png",))
    save(figure_effects(comparison, title=title), FIGURES / f"{name}-effects", formats=("png",))
    save(figure_correlations(comparison, title=title), FIGURES / f"{name}-correlation", formats=("png",))
    write(name, {"accuracies": accuracies, **comparison.to_json()}, started)
