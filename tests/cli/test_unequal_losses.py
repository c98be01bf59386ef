"""`landscape sharpness` of several checkpoints says when their losses are too far apart to compare curvatures."""

from in_process import landscape

from landscape.results.sharpness import WIDE

FEW = ("--samples", 48)


def test_checkpoints_of_other_losses_are_told(tmp_path):
    for epochs, name in ((1, "early"), (60, "late")):
        out = tmp_path / f"{name}.safetensors"
        landscape("train", "digits-mlp", "-M", "widths=[8]", "--epochs", epochs, "--batch", 12, *FEW, "--out", out)
    both = (tmp_path / "early.safetensors", tmp_path / "late.safetensors")
    done = landscape("sharpness", *both, *FEW, "--measures", "logit_norm", "--out", tmp_path / "s")
    words = " ".join(done.err.split())
    assert "warning: the losses range from" in words
    assert "compare checkpoints of equal training loss" in words
    landscape("report", tmp_path / "s", "--out", tmp_path / "r.html")
    assert "Not comparable:" in (tmp_path / "r.html").read_text()
    same = landscape("sharpness", both[0], both[0], *FEW, "--measures", "logit_norm")
    assert "the losses range" not in same.err
    assert WIDE > 1
