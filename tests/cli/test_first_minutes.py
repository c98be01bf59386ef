"""The first commands with a file of one's own: every refusal prints the whole command that would work."""

import pytest
from in_process import landscape
from safetensors.torch import save_file

from landscape.cli.explain import with_the_command
from landscape.errors import UsageError
from landscape.tasks.torchvision_import import torchvision

SMALL = "shufflenet_v2_x0_5"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("sharpness a.pth", "sharpness a.pth"),
        ("spectrum a.pth --model n -M k=4 --seed 1", "spectrum a.pth --seed 1"),
        ("spectrum --data=q a.pth --json", "spectrum a.pth --json"),
    ],
)
def test_the_command_keeps_what_was_right(words, kept):
    options = ("--model", "m:n", "-M", "k=3", "--data", "X:Y")
    error = UsageError("expected a, found b", fix=f"add {' '.join(options)}, with care", options=options)
    command = f"landscape {kept} {' '.join(options)}"
    assert with_the_command(error, words.split()) == f"expected a, found b; run: {command}, with care"
    assert with_the_command(UsageError("expected a, found b", fix="add c"), words.split()) == "expected a, found b; add c"


def test_a_file_alone_is_answered_with_the_command(tmp_path):
    net = torchvision.models.get_model(SMALL, num_classes=7)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    done = landscape("sharpness", "net.safetensors", "--measures", "logit_norm", cwd=tmp_path, code=2)
    options = f"--model torchvision:{SMALL} -M num_classes=7 --data KIND:PATH"
    assert f"; run: landscape sharpness net.safetensors --measures logit_norm {options}, with" in done.error
