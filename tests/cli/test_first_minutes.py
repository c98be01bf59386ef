"""The first commands with a file of one's own: every refusal prints the whole command that would work."""

import pytest
from in_process import landscape
from safetensors.torch import save_file

from landscape.cli.explain import with_the_command
from landscape.errors import UsageError
from landscape.tasks.torchvision_import import torchvision

SMALL = "shufflenet_v2_x0_5"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["sharpness", "a b.pth"], "landscape sharpness 'a b.pth' --model m:n -M k=3 --data X:Y"),
        (["spectrum", "a.pth", "--model", "n", "-M", "k=4", "--seed", "1"], "landscape spectrum a.pth --seed 1 --model m:n -M k=3 --data X:Y"),
        (["spectrum", "--data=q", "a.pth", "--json"], "landscape spectrum a.pth --json --model m:n -M k=3 --data X:Y"),
    ],
)  # fmt: skip
def test_the_command_keeps_what_was_right(words, command):
    options = ("--model", "m:n", "-M", "k=3", "--data", "X:Y")
    error = UsageError("expected a, found b", fix="add --model m:n -M k=3 --data X:Y, with care", options=options)
    assert with_the_command(error, words) == f"expected a, found b; run: {command}, with care"
    assert with_the_command(UsageError("expected a, found b", fix="add c"), words) == "expected a, found b; add c"


def test_a_file_alone_is_answered_with_the_command(tmp_path):
    net = torchvision.models.get_model(SMALL, num_classes=7)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    done = landscape("sharpness", "net.safetensors", "--measures", "logit_norm", cwd=tmp_path, code=2)
    assert done.error.partition("run: ")[2].partition(", with")[0] == (
        f"landscape sharpness net.safetensors --measures logit_norm --model torchvision:{SMALL} -M num_classes=7 --data KIND:PATH"
    )
