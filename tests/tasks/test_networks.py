"""Built-in networks: sizes from the papers, tracing, seeds, bounds."""

import pytest
import torch

from landscape.errors import UsageError
from landscape.tasks.networks import NETWORKS, build

SHAPES = {"mlp": (1, 8, 8), "digits-cnn": (1, 8, 8), "resnet20": (3, 32, 32), "vgg9": (3, 32, 32), "c1": (3, 32, 32)}


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_network_has_a_shape_here():
    assert set(SHAPES) == set(NETWORKS)


@pytest.mark.parametrize(
    ("name", "options", "weights"),
    [
        ("mlp", {}, 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ("mlp", {"batchnorm": True}, 17_226 + 2 * (128 + 64)),
        ("digits-cnn", {}, 16 * 9 + 32 + 32 * 16 * 9 + 64 + 128 * 10 + 10),
        # 0.27M in He et al. 2015, table 6; 269,722 with parameter-free shortcuts
        ("resnet20", {"shortcut": "A"}, 269_722),
        ("resnet20", {"shortcut": "B"}, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        # 0.85M in the same table
        ("resnet20", {"shortcut": "A", "blocks": 9}, 853_018),
    ],
)
def test_number_of_weights(name, options, weights):
    assert count(build(name, **options)) == weights


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet_names_match_public_checkpoints(shortcut):
    keys = build("resnet20", shortcut=shortcut).state_dict().keys()
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.weight"} <= set(keys)
    assert ("layer2.0.shortcut.0.weight" in keys) == (shortcut == "B")


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NETWORKS), ("mlp", {"batchnorm": True, "activation": "tanh", "dropout": 0.5})],
)
def test_traces_and_exports(name, options):
    model = build(name, **options).eval()
    x = torch.randn(2, *SHAPES[name], generator=torch.Generator().manual_seed(0))
    expected = model(x)
    assert expected.shape == (2, 10)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_seed_decides_and_global_generator_is_left(name):
    before = torch.get_rng_state()
    a, b, c = (build(name, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_he_initialisation():
    weight = build("vgg9").features[3].weight  # 64 channels of 3x3: fan in 576
    assert weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)


def test_mlp_with_batchnorm_tanh_and_dropout_is_what_its_formula_says():
    model = build("mlp", inputs=6, widths=[5, 4], classes=3, batchnorm=True, activation="tanh", dropout=0.25, seed=2).double()
    assert [name for name, _ in model.named_children()][1:5] == ["fc1", "bn1", "tanh1", "dropout1"]
    w = {name: p.double() for name, p in model.state_dict().items()}
    x = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.train()
    for dropout in (model.dropout1, model.dropout2):
        dropout.p = 0.0
    h = x
    for i in (1, 2):
        z = h @ w[f"fc{i}.weight"].T + w[f"fc{i}.bias"]
        h = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()).tanh()
    torch.testing.assert_close(model(x), h @ w["fc3.weight"].T + w["fc3.bias"], rtol=1e-12, atol=1e-12)


def test_tanh_starts_with_unit_gain():
    weight = build("mlp", inputs=400, widths=[500, 10], activation="tanh").fc1.weight
    assert weight.std().item() == pytest.approx((1 / 400) ** 0.5, rel=0.02)


def test_meta_takes_no_memory():
    assert all(p.is_meta for p in build("mlp", inputs=1_000_000, widths=[4096], device="meta").parameters())


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("resnet99", {}, r"expected a built-in network \(mlp, digits-cnn, resnet20, vgg9, c1\), found 'resnet99'"),
        (
            "mlp",
            {"width": 3},
            r"expected options of mlp \(inputs, widths, classes, dropout, batchnorm, activation\), found 'width'",
        ),
        ("mlp", {"batchnorm": 1}, r"expected batchnorm of mlp as true or false, found 1"),
        ("mlp", {"activation": ["gelu"]}, r"expected activation of mlp as relu or tanh, found \['gelu'\]"),
        ("mlp", {"widths": [10**9]}, r"expected width between 1 and 4096, found 1000000000"),
        ("mlp", {"widths": [8] * 101}, r"expected at most 100 hidden layers, found 101"),
        ("mlp", {"widths": 7}, r"expected widths of mlp as a list such as \[128, 64\], found 7"),
        ("mlp", {"dropout": 1.0}, r"expected dropout of mlp in \[0, 1\), found 1.0"),
        ("resnet20", {"blocks": 0}, r"expected blocks between 1 and 100, found 0"),
        ("resnet20", {"width": True}, r"expected width between 1 and 4096, found True"),
        ("resnet20", {"shortcut": "C"}, r"expected shortcut A or B, found 'C'"),
        ("vgg9", {"size": 4}, r"expected size of at least 8, found a smaller one"),
    ],
)
def test_bad_options(name, options, text):
    with pytest.raises(UsageError, match=text):
        build(name, **options)
