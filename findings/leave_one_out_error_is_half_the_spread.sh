#!/usr/bin/env bash
# matfree 0.6.3: the standard error that comes with XTrace is little more than half of the estimate's spread.
#
# One expects mean ± 1.96 sem of estimator_leave_one_out_mean_and_sem to hold the trace 19 times of 20. The leave-one-out estimates
# share all but one of their probes, so they are much more alike than independent ones, and their deviation over the root of
# their number is too small: for a spectrum with ten outliers, like that of a trained classifier's Hessian, the estimate is right in
# the mean, but the interval from 4 probes covers it in two of three runs, that from 8 in three of four.
# Output seen: "4 probes: spread 8.23, sem 4.75, covered 67 %" and "8 probes: spread 1.86, sem 1.15, covered 74 %".
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check matfree==0.6.3 jax==0.10.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import jax
import numpy as np
from matfree import stochtrace

size, runs = 300, 300
outliers = np.array([10, 8, 6, 5, 4, 3, 2, 1, 0.5, 0.3])
spectrum = np.concatenate([outliers, np.linspace(-0.05, 0.05, size - 10)])
vectors, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
matrix = jax.numpy.asarray((vectors * spectrum) @ vectors.T, np.float32)
for probes in (4, 8):
    sampler = stochtrace.sampler_sphere(jax.numpy.zeros(size, np.float32), num=probes)
    estimator = stochtrace.estimator_leave_one_out_mean_and_sem(stochtrace.leave_one_out_xtrace(), sampler)
    estimate = jax.jit(lambda key: estimator(lambda v: matrix @ v, key))
    means, sems = np.array([estimate(jax.random.PRNGKey(run)) for run in range(runs)]).T
    covered = float(np.mean(np.abs(means - spectrum.sum()) <= 1.96 * sems))
    print(f"{probes} probes: spread {means.std():.2f}, sem {sems.mean():.2f}, covered {covered:.0%}".replace("%", " %"))
    assert abs(means.mean() - spectrum.sum()) < 3 * means.std() / runs**0.5, "unbiased"
    assert sems.mean() < 0.7 * means.std() and covered < 0.8
PY
