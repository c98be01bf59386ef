"""Studies of memorization and sharpness: one module a study, `experiments.studies` lists them.

python -m experiments.NAME [--data cifar10.safetensors] [--seeds 5]

Each trains its own runs (kept in runs/), writes experiments/results/NAME.json with a verdict, and draws figures/NAME.png from
it. `python -m experiments` runs them all. An interrupted study goes on where it was.
"""
