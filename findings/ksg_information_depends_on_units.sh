#!/usr/bin/env bash
# infomeasure 0.6.3: nearest-neighbour mutual information falls to a tenth when one variable is given in other units.
#
# Mutual information does not change when a variable is multiplied by a number, and the estimator of Kraskov, Stoegbauer and
# Grassberger adapts to local distances, so one expects the same value for millimetres and metres. The default does not put the
# variables on one scale: neighbours are looked for in the joint space, where the larger variable decides alone. Inputs of size 1
# beside activations of size 1,000 share almost nothing, with no warning. normalize=True cures it.
# Output seen: "true 0.83; x: 0.82; 1000 x: 0.07; 1000 x, normalized: 0.82". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check infomeasure==0.6.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import infomeasure
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=2000)
y = 0.9 * x + np.sqrt(1 - 0.9**2) * rng.normal(size=2000)
true = -0.5 * np.log(1 - 0.9**2)
plain, large = (infomeasure.mutual_information(scale * x, y, approach="ksg") for scale in (1, 1000))
cured = infomeasure.mutual_information(1000 * x, y, approach="ksg", normalize=True)
print(f"true {true:.2f}; x: {plain:.2f}; 1000 x: {large:.2f}; 1000 x, normalized: {cured:.2f}")
assert abs(plain - true) < 0.05 and large < 0.1 and abs(cured - true) < 0.05
PY
