"""One script a claim; each trains its own runs (kept in runs/), writes experiments/results/NAME.json and figures/NAME.png.

python -m experiments.keskar     large batches find sharper minima
python -m experiments.zhang      networks fit random labels; what sharpness says of them
python -m experiments.dinh       rescaling changes some measures and not others
python -m experiments.symmetries --seeds 3
                                 a clean transformer can look sharper than one that memorized
"""
