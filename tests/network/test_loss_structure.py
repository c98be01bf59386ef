"""How a loss of one's own weighs its samples, against weights written down by hand; results whatever the batch size."""

import functools

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_hessian, dense_loss
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import NumericalError, UsageError
from landscape.network.losses.pairing import Pairing
from landscape.network.losses.structure import structure
from landscape.objective import Objective

CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 5.0])


def class_weighted(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o, t, weight=CLASS_WEIGHTS.to(o))


class Focal(nn.CrossEntropyLoss):
    """A subclass of PyTorch's loss that computes something else."""

    def forward(self, o: Tensor, t: Tensor) -> Tensor:
        nll = F.cross_entropy(o, t, reduction="none")
        return ((1 - (-nll).exp()) ** 2 * nll).mean()


class Root(nn.MSELoss):
    def forward(self, o: Tensor, t: Tensor) -> Tensor:
        return super().forward(o, t).sqrt()


def contrastive(o: Tensor, t: Tensor) -> Tensor:
    s = F.normalize(o, dim=1) @ F.normalize(o, dim=1).T / 0.5
    return F.cross_entropy(s - 1e4 * torch.eye(len(o)).to(o), (torch.arange(len(o)) + 1) % len(o))


def worst(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o, t, reduction="none").max()


def ranked(o: Tensor, t: Tensor) -> Tensor:
    """Every pair of samples; alone a sample has none, and the loss raises."""
    if len(o) < 2:
        raise ValueError("a pair needs two")
    return F.softplus(-(o[:, :1] - o[:, :1].T) * (t[:, None] - t[None]).sign()).mean()


def few_counted(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o, t, ignore_index=1)


def drawn(seed: int = 0, n: int = 40) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=g), torch.randint(0, 3, (n,), generator=g).sort().values


MEANS = {
    "equal": (lambda o, t: F.cross_entropy(o, t), lambda t: torch.ones(len(t))),
    "class weights": (class_weighted, lambda t: CLASS_WEIGHTS[t]),
    "focal": (Focal(), lambda t: torch.ones(len(t))),
    "ignored class": (few_counted, lambda t: (t != 1).float()),
    "label smoothing": (lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1), lambda t: torch.ones(len(t))),
    "square": (lambda o, t: (o[:, 0] - t).square().mean(), lambda t: torch.ones(len(t))),
}


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("sizes", [(40,), (16, 16, 8), (1,) * 40])
def test_weights_are_those_written_down(name, sizes):
    """Also where a batch holds one class only, so that nothing within it tells its weight."""
    loss, weights = MEANS[name]
    o, t = drawn()
    found = structure(loss, zip(o.split(sizes), t.split(sizes), strict=True))
    assert found.apart
    w, expected = torch.cat(found.weights), weights(t).double()
    torch.testing.assert_close(w / w.sum(), expected / expected.sum(), rtol=1e-6, atol=1e-9)
    if bool((expected == expected[0]).all()):
        assert bool((w == 1).all()), "equal weights are one each, to the bit"


@pytest.mark.parametrize("loss", [Root(), contrastive, worst, ranked], ids=["root", "contrastive", "maximum", "pairs"])
def test_what_is_no_mean_is_told(loss):
    o, t = drawn()
    real = t.double()[:, None].expand(-1, 3) if isinstance(loss, Root) else t
    found = structure(loss, [(o, real)])
    assert not found.apart
    assert found.weights is None


def test_a_loss_that_works_in_its_own_dtype_only_is_asked_in_that():
    weight = CLASS_WEIGHTS.clone()
    o, t = drawn()
    found = structure(lambda z, y: F.cross_entropy(z, y, weight=weight), [(o, t)])
    assert found.apart
    expected = weight[t].double()
    torch.testing.assert_close(found.weights[0] / found.weights[0].sum(), expected / expected.sum(), rtol=1e-3, atol=1e-6)


def test_a_sum_is_refused():
    with pytest.raises(UsageError, match=r"expected a loss that averages over samples, found .* for two samples with losses"):
        structure(lambda o, t: F.cross_entropy(o, t, reduction="sum"), [drawn()])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.h = nn.Embedding(11, 4), nn.Linear(4, 11)

    def forward(self, ids: Tensor) -> Tensor:
        return self.h(torch.tanh(self.e(ids)))


def over_tokens(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o.flatten(0, 1), t.flatten(), ignore_index=-100)


def shifted(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o[:, :-1].flatten(0, 1), t[:, 1:].flatten(), ignore_index=-100)


def network(name: str):
    torch.manual_seed(0)
    if name == "tokens":
        ids = torch.randint(1, 11, (24, 6))
        return Words(), over_tokens, ids, ids.masked_fill(torch.arange(6) >= (torch.arange(24) // 6 + 1)[:, None], -100)
    net, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(24, 5)
    if name == "root":
        return net, Root(), x, torch.randn(24, 3) * torch.arange(24)[:, None] / 10
    losses = {"class weights": class_weighted, "focal": Focal(), "contrastive": contrastive, "maximum": worst}
    return net, losses[name], x, torch.arange(24) // 8  # sorted by class, as files on disk are


@pytest.mark.parametrize("name", ["class weights", "focal", "tokens", "root", "contrastive", "maximum"])
@pytest.mark.parametrize("size", [None, 1, 5, 24])
def test_value_gradient_and_products_are_those_of_all_samples_at_once(name, size):
    net, loss, x, y = network(name)
    objective = Objective(net, loss, (x, y), dtype="float64", batch_size=size)
    function, theta = dense_loss(net, loss, x, y)
    assert objective.value().value == pytest.approx(float(function(theta)), rel=1e-9)
    torch.testing.assert_close(objective.gradient(), torch.func.grad(function)(theta), rtol=1e-7, atol=1e-10)
    hessian = torch.func.jacrev(torch.func.grad(function))(theta).numpy()
    products = objective.hvp(torch.eye(objective.dim, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(products, hessian, atol=1e-8 * max(1, np.abs(hessian).max()))
    if name in ("class weights", "tokens", "focal"):
        each, w = objective.losses(), objective.sample_weights
        assert float((w * each).sum() / w.sum()) == pytest.approx(objective.value().value, rel=1e-9)
        assert objective.value().stderr > 0
    else:
        assert objective.value().stderr is None
        assert "does not come apart" in objective.value().reason
    subset = objective.subset(9)
    part, _ = dense_loss(net, loss, x[:9], y[:9])
    assert subset.value().value == pytest.approx(float(part(theta)), rel=1e-9)


def test_another_loss_of_the_same_network_has_its_own_weights():
    net, _, x, y = network("class weights")
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=5)
    other = objective.with_loss(class_weighted)
    expected = Objective(net, nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), (x, y), dtype="float64")
    assert other.value().value == pytest.approx(expected.value().value, rel=1e-9)
    assert objective.value().value == pytest.approx(float(dense_loss(net, nn.CrossEntropyLoss(), x, y)[0](objective.theta)))


def test_class_weights_given_either_way_are_one_loss():
    model, _, x, y = CASES[0].make(0)
    known = Objective(model, nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), (x, y), dtype="float64", batch_size=4)
    found = Objective(model, class_weighted, (x, y), dtype="float64", batch_size=4)
    assert found.value().value == pytest.approx(known.value().value, rel=1e-9)
    assert found.value().stderr == pytest.approx(known.value().stderr, rel=1e-6)
    eye = torch.eye(known.dim, dtype=torch.float64)
    np.testing.assert_allclose(found.hvp(eye).numpy(), dense_hessian(model, known.loss, x, y), atol=1e-8)
    np.testing.assert_allclose(found.fishervp(eye).numpy(), known.fishervp(eye).numpy(), atol=1e-8)


def test_a_shifted_language_model_is_scored_as_its_loss_pairs_it():
    """Next word of a counting sequence, predicted rightly; -100 and the first word count for nothing."""

    class Next(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(5 * torch.eye(11).roll(1, 1))

        def forward(self, ids: Tensor) -> Tensor:
            return self.logits[ids]

    ids = (torch.arange(20)[:, None] + torch.arange(8)) % 11
    labels = ids.masked_fill(torch.arange(8) >= 5, -100)
    for size in (None, 6):
        found = Objective(Next(), shifted, (ids, labels), batch_size=size).evaluate()
        assert found.accuracy.value == pytest.approx(1.0)
    wrong = labels.clone()
    wrong[:5, 1] = (wrong[:5, 1] + 1) % 11
    found = Objective(Next(), shifted, (ids, wrong)).evaluate()
    assert found.accuracy.value == pytest.approx(75 / 80), "four places a sequence count, and five words are wrong"


def test_pairings_are_found_by_slope_and_never_invented():
    g = torch.Generator().manual_seed(1)
    o, t = torch.randn(8, 5, 7, generator=g), torch.randint(0, 7, (8, 5), generator=g)
    t[:, 3:] = -100
    assert structure(over_tokens, [(o, t)]).pairing == Pairing(2, 0, (-100,))
    assert structure(shifted, [(o, t)]).pairing == Pairing(2, 1, (-100,))
    channels = structure(lambda a, b: F.cross_entropy(a, b, ignore_index=-100), [(o.movedim(2, 1), t)]).pairing
    assert channels == Pairing(1, 0, (-100,))
    backwards = structure(lambda a, b: F.cross_entropy(a.flip(1).flatten(0, 1), b.flatten(), ignore_index=-100), [(o, t)])
    assert backwards.pairing is None
    assert structure(lambda a, b: a.square().mean(), [(o, t)]).pairing is None
    assert structure(worst, [(o[:, 0], t[:, 0])]).pairing is None, "of one sample at a time nothing can be told"


def test_a_loss_that_draws_or_remembers_is_refused():
    model, _, x, y = CASES[0].make(0)
    with pytest.raises(NumericalError, match="expected the same loss twice"):
        Objective(model, lambda o, t: F.cross_entropy(o, t) + torch.rand(()), (x, y))


@pytest.mark.parametrize("kind", ["penalty", "own weights"])
def test_a_loss_that_depends_on_weights_is_refused(kind):
    model, _, x, y = CASES[0].make(0)
    if kind == "penalty":
        loss, name = lambda o, t: F.cross_entropy(o, t) + 0.1 * model[2].weight.square().sum(), r"the model's 2\.weight"
    else:

        class Centred(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.centres = nn.Parameter(torch.zeros(3))

            def forward(self, o: Tensor, t: Tensor) -> Tensor:
                return F.cross_entropy(o - self.centres, t)

        loss, name = Centred(), "its own centres"
    with pytest.raises(
        UsageError, match=f"expected a loss of outputs and targets alone, found one that also depends on {name}"
    ):
        Objective(model, loss, (x, y))
    if kind != "penalty":
        held = loss.requires_grad_(False)
        assert Objective(model, held, (x, y)).value().value > 0, "weights that do not vary are a loss's own affair"


TARGETS = [
    (lambda y: y.byte(), None),
    (lambda y: y.int(), None),
    (lambda y: y.float(), "found float32 of shape (N); pass indices as y.long()"),
    (lambda y: y > 0, "expected class indices, found boolean targets; pass y.long()"),
    (lambda y: y[:, None], "expected class indices of shape (N), found (N, 1); pass y.squeeze(1)"),
]


@pytest.mark.parametrize(("change", "message"), TARGETS, ids=["uint8", "int32", "float", "bool", "column"])
def test_labels_in_other_types_are_taken_or_told(change, message):
    import re

    model, loss, x, y = CASES[0].make(0)
    if message is None:
        assert Objective(model, loss, (x, change(y))).value().value == Objective(model, loss, (x, y)).value().value
        return
    with pytest.raises(UsageError, match=re.escape(message)):
        Objective(model, loss, (x, change(y)))


def test_whole_numbers_where_the_loss_wants_real_ones():
    torch.manual_seed(0)
    net, x, y = nn.Linear(5, 1), torch.randn(9, 5), torch.randint(0, 2, (9, 1))
    with pytest.raises(UsageError, match=r"expected real targets for BCEWithLogitsLoss, found int64; pass y\.float"):
        Objective(net, nn.BCEWithLogitsLoss(), (x, y))
    exact = Objective(net, nn.MSELoss(), (x, y.float())).hvp(torch.ones(6))
    assert torch.equal(Objective(net, nn.MSELoss(), (x, y)).hvp(torch.ones(6)), exact)


def test_the_loss_s_own_error_is_one_line():
    model, _, x, y = CASES[0].make(0)
    with pytest.raises(UsageError, match=r"expected a loss that takes outputs of shape \(2, 3\) and targets of shape \(2,\)"):
        Objective(model, lambda o, t: (o @ t.float()).mean(), (x, y))
    with pytest.raises(NumericalError, match="expected finite weights in the loss, found NaN or infinity in its weight"):
        Objective(model, nn.CrossEntropyLoss(weight=torch.tensor([1.0, torch.nan, 1.0])), (x, y))


class Weighing:
    """A loss that is an object."""

    def __init__(self) -> None:
        self.parts = {"weight": torch.tensor([0.2, 1.0, 5.0])}

    def __call__(self, o: Tensor, t: Tensor) -> Tensor:
        return self.of(o, t)

    def of(self, o: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(o, t, weight=self.parts["weight"])


def _held_in(where: str):
    """Class-weighted cross-entropy whose weights, in float32, are held there."""
    w, module = torch.tensor([0.2, 1.0, 5.0]), nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 5.0]))
    return {
        "closure": lambda o, t: F.cross_entropy(o, t, weight=w),
        "closure of a closure": lambda o, t: (lambda: F.cross_entropy(o, t, weight=w))(),
        "a list": (lambda held: lambda o, t: F.cross_entropy(o, t, weight=held[0]))([w]),
        "a loss module": lambda o, t: module(o, t),
        "a module's name": lambda o, t: F.cross_entropy(o, t, weight=CLASS_WEIGHTS),
        "a default": lambda o, t, w=w: F.cross_entropy(o, t, weight=w),
        "partial": functools.partial(F.cross_entropy, weight=w),
        "an object": Weighing(),
        "a method": Weighing().of,
    }[where]


PLACES = ("closure", "closure of a closure", "a list", "a loss module", "a module's name", "a default", "partial", "an object")


@pytest.mark.parametrize("where", [*PLACES, "a method"])
def test_tensors_that_a_function_holds_are_converted_like_those_of_a_module(where):
    """PyTorch's cross-entropy does not take outputs in float64 with weights in float32."""
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 3), torch.randn(20, 4), torch.randint(0, 3, (20,))
    loss = _held_in(where)
    for dtype in ("float32", "float64"):
        objective = Objective(net, loss, (x, y), dtype=dtype, batch_size=7)
        same = Objective(net, nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), (x, y), dtype=dtype, batch_size=7)
        assert objective.value().value == pytest.approx(same.value().value, rel=1e-6)
        torch.testing.assert_close(objective.hvp(objective.theta), same.hvp(same.theta), rtol=1e-5, atol=1e-6)
    assert loss(net(x), y).dtype == torch.float32, "the caller's own is as it was"
    assert CLASS_WEIGHTS.dtype == torch.float32


def test_a_function_whose_tensors_fit_is_the_caller_s_own():
    w = torch.tensor([0.2, 1.0, 5.0])

    def loss(o: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(o, t, weight=w)

    net, x, y = nn.Linear(4, 3), torch.randn(20, 4), torch.randint(0, 3, (20,))
    assert Objective(net, loss, (x, y)).loss is loss
    assert Objective(net, loss, (x, y), dtype="float64").loss is not loss
