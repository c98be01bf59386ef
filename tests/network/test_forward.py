"""One function for values and derivatives, whatever a forward pass does; and nothing lost in copying a network."""

import copy

import numpy as np
import pytest
import torch
from cases import CASES, WrongCube
from reference import dense_hessian, dense_loss
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from landscape.errors import NumericalError, UsageError
from landscape.network.rounding import output_rounding
from landscape.objective import Objective


def data(n: int = 30, outputs: int | None = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=g)
    return x, torch.randint(0, outputs, (n,), generator=g) if outputs else torch.randn(n, 2, generator=g)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.reentrant = nn.Sequential(nn.Linear(8, 6), nn.Tanh()), nn.Linear(6, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=self.reentrant))

    def plain(self) -> nn.Module:
        return nn.Sequential(copy.deepcopy(self.body), copy.deepcopy(self.head))


def test_checkpointed_layers_are_run_again_at_the_point_that_is_differentiated():
    """Under functional_call alone the backward pass would run them at the module's own weights, and be 80 % off in silence."""
    torch.manual_seed(1)
    net = Checkpointed()
    x, y = data()
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=7)
    function, theta = dense_loss(net.plain(), nn.CrossEntropyLoss(), x, y)
    np.testing.assert_allclose(
        objective.hvp(torch.eye(objective.dim)), dense_hessian(net.plain(), nn.CrossEntropyLoss(), x, y), atol=1e-10
    )
    elsewhere = theta + 0.5 * torch.randn(len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(objective.gradient(elsewhere), torch.func.grad(function)(elsewhere), rtol=1e-9, atol=1e-12)
    assert float((objective.gradient(elsewhere) - objective.gradient()).norm()) > 1e-3
    v = torch.ones(objective.dim, dtype=torch.float64)
    product = objective.hvp(v)
    objective.gradient(elsewhere)
    assert torch.equal(objective.hvp(v), product), "graphs that were kept hold their own weights"


def test_reentrant_checkpoints_are_refused_by_name():
    objective = Objective(Checkpointed(reentrant=True), nn.CrossEntropyLoss(), data())
    assert objective.value().value > 0
    with pytest.raises(NumericalError, match="found the reentrant kind; pass use_reentrant=False"):
        objective.gradient()


class Slope(nn.Module):
    """u' + u of a network u; `how` the derivative in its input is taken."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.u, self.how = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "torch.func":
            return torch.func.vmap(torch.func.grad(lambda z: self.u(z).squeeze(-1)))(x) + self.u(x)
        x = x.detach().requires_grad_()
        u = self.u(x)
        return torch.autograd.grad(u.sum(), x, create_graph=True)[0] + u


@pytest.mark.parametrize("how", ["autograd.grad", "torch.func"])
def test_a_network_that_differentiates_itself(how):
    """Against u and u' written out by hand."""
    torch.manual_seed(0)
    net = Slope(how)
    x = torch.linspace(0, 1, 25)[:, None]
    y = torch.sin(3 * x)
    objective = Objective(net, nn.MSELoss(), (x, y), dtype="float64", batch_size=10)

    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u = copy.deepcopy(net.u)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.u[0](x))
            return ((1 - h.square()) * self.u[0].weight[:, 0]) @ self.u[2].weight.T + self.u[2](h)

    function, theta = dense_loss(ByHand(), nn.MSELoss(), x, y)
    assert objective.value().value == pytest.approx(float(function(theta)), rel=1e-12)
    hessian = dense_hessian(ByHand(), nn.MSELoss(), x, y)
    np.testing.assert_allclose(objective.hvp(torch.eye(objective.dim)), hessian, atol=1e-9)


class Padded(nn.Module):
    def __init__(self, nested: bool) -> None:
        super().__init__()
        self.e, self.head = nn.Embedding(12, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.t = nn.TransformerEncoder(layer, 1, enable_nested_tensor=nested)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.t(self.e(ids), src_key_padding_mask=ids == 0).mean(1))


@pytest.mark.parametrize("nested", [True, False])
def test_values_are_of_the_function_that_is_differentiated(nested):
    """Without gradients PyTorch takes a short cut over padded rows, which computes another function."""
    torch.manual_seed(0)
    net = Padded(nested).eval()
    ids = torch.randint(1, 12, (12, 7))
    ids[:, 6:], ids[3, 2:] = 0, 0
    y = torch.randint(0, 3, (12,))
    before = torch.backends.mha.get_fastpath_enabled()
    objective = Objective(net, nn.CrossEntropyLoss(), (ids, y), dtype="float64")
    at, gradient = objective.value_and_gradient()
    assert objective.value().value == pytest.approx(at, rel=1e-12)
    step = 1e-5 * gradient / gradient.norm()
    slope = (objective.value(objective.theta + step).value - objective.value(objective.theta - step).value) / 2e-5
    assert slope == pytest.approx(float(gradient.norm()), rel=1e-6)
    assert torch.backends.mha.get_fastpath_enabled() == before


class Vectors(nn.Module):
    def __init__(self, size: float, padding: int | None = 0) -> None:
        super().__init__()
        vectors = torch.randn(12, 4)
        vectors[0] *= size
        self.e = nn.Embedding.from_pretrained(vectors, freeze=False, padding_idx=padding)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.e(ids)).mean(1))


def test_a_padding_row_keeps_its_trained_values_at_every_point():
    torch.manual_seed(0)
    net = Vectors(1.0)
    ids = torch.randint(1, 12, (40, 9))
    ids[:, 6:] = 0
    y = torch.randint(0, 3, (40,))
    objective = Objective(net, nn.CrossEntropyLoss(), (ids, y), dtype="float64")
    free = Vectors(1.0, None)
    free.load_state_dict(net.state_dict())
    hessian = dense_hessian(free, nn.CrossEntropyLoss(), ids, y)
    hessian[:4], hessian[:, :4] = 0, 0  # as training holds it: no derivative reaches the row
    np.testing.assert_allclose(objective.hvp(torch.eye(objective.dim)), hessian, atol=1e-10)
    moved = objective.theta
    moved[:4] += 10.0
    assert objective.value(moved).value == objective.value().value == objective.at(moved).value().value
    moved[4:8] += 1.0
    assert objective.value(moved).value != objective.value().value


def test_a_forward_pass_that_rewrites_its_weights_touches_nobody_s():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(12, 4, max_norm=0.5), nn.Flatten(), nn.Linear(12, 3))
    ids, y = torch.randint(0, 12, (20, 3)), torch.randint(0, 3, (20,))
    before = copy.deepcopy(net.state_dict())
    objective = Objective(net, nn.CrossEntropyLoss(), (ids, y), dtype="float64")
    theta = objective.theta
    first = objective.value().value
    point = theta.clone()
    objective.value(point)
    assert torch.equal(point, theta), "the caller's own vector"
    assert torch.equal(objective.theta, theta)
    assert objective.value().value == first
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())
    shrunk = copy.deepcopy(net)
    with torch.no_grad():
        shrunk(torch.arange(12).view(4, 3))
    plain = nn.Sequential(nn.Embedding.from_pretrained(shrunk[0].weight.detach()), nn.Flatten(), copy.deepcopy(net[2]))
    assert first == pytest.approx(Objective(plain, nn.CrossEntropyLoss(), (ids, y), dtype="float64").value().value, rel=1e-6)


class RootMeanSquare(nn.Module):
    """In float32 whatever it is given, as Llama and its kin have it."""

    def __init__(self, n: int, inside: bool) -> None:
        super().__init__()
        self.scale, self.inside = nn.Parameter(torch.ones(n)), inside

    def forward(self, x: Tensor) -> Tensor:
        h = x.float() if self.inside else x
        return self.scale * (h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt()).to(x.dtype)


def llama_like(inside: bool) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(23, 8),
        nn.Linear(8, 8),
        RootMeanSquare(8, inside),
        nn.SiLU(),
        RootMeanSquare(8, inside),
        nn.Flatten(),
        nn.Linear(56, 5),
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_network_with_float32_inside_is_held_to_its_own_rounding(seed):
    torch.manual_seed(seed)
    net, ids, y = llama_like(True), torch.randint(0, 23, (24, 7)), torch.randint(0, 5, (24,))
    free = llama_like(False)
    free.load_state_dict(net.state_dict())
    for dtype in ("float32", "float64"):
        objective = Objective(net, nn.CrossEntropyLoss(), (ids, y), dtype=dtype)
        hessian = dense_hessian(free, nn.CrossEntropyLoss(), ids, y)
        found = objective.hvp(torch.eye(objective.dim)).double().numpy()
        np.testing.assert_allclose(found, hessian, atol=1e-4 * np.abs(hessian).max())
        assert 1e-8 < objective.rounding < 1e-5
    assert Objective(free, nn.CrossEntropyLoss(), (ids, y), dtype="float64").rounding < 1e-13


def test_a_wrong_second_derivative_is_still_found_beside_a_float32_inside():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), RootMeanSquare(6, True), WrongCube(), nn.Linear(6, 3))
    with pytest.raises(NumericalError, match=r"expected Hv to agree with a finite difference|expected a symmetric Hessian"):
        Objective(net, nn.CrossEntropyLoss(), data()).hvp(torch.ones(81))


@pytest.mark.parametrize("ignored", [1, 8, 40, 250])
@pytest.mark.parametrize("size", [None, 1, 8])
def test_first_rows_that_do_not_count_are_not_the_data(ignored, size):
    torch.manual_seed(0)
    x, y = torch.randn(300, 5), torch.randint(0, 3, (300,))
    y[:ignored] = -100
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=size)
    only = Objective(net, nn.CrossEntropyLoss(), (x[ignored:], y[ignored:]), dtype="float64")
    assert objective.value().value == pytest.approx(only.value().value, rel=1e-12)
    v = torch.ones(objective.dim, dtype=torch.float64)
    torch.testing.assert_close(objective.hvp(v), only.hvp(v), rtol=1e-10, atol=1e-12)


def test_first_rows_of_a_class_that_weighs_nothing():
    x, y = data(60)
    y[:20] = 0
    net = nn.Linear(8, 3)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 2.0]))
    objective = Objective(net, loss, (x, y), dtype="float64", batch_size=5)
    np.testing.assert_allclose(objective.hvp(torch.eye(27)), dense_hessian(net, loss, x, y), atol=1e-11)


class Graph(nn.Module):
    """A graph convolution: nodes are the rows, edges are not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        pulled = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        return self.b(torch.tanh(self.a(x + pulled)))


@pytest.mark.parametrize("masked", [False, True])
def test_a_graph_is_one_whole(masked):
    torch.manual_seed(0)
    net, x, edges, y = Graph(), torch.randn(20, 4), torch.randint(0, 20, (2, 50)), torch.randint(0, 3, (20,))
    labelled = torch.arange(20) % 3 == 0

    def loss(o: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(o[labelled], t[labelled]) if masked else F.cross_entropy(o, t)

    objective = Objective(net, loss, [(x, edges, y)], dtype="float64")
    twin = copy.deepcopy(net).double()

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = twin

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x, edges)

    function, theta = dense_loss(Held(), loss, x, y)
    assert objective.value().value == pytest.approx(float(function(theta)), rel=1e-12)
    np.testing.assert_allclose(objective.hvp(torch.eye(objective.dim)), dense_hessian(Held(), loss, x, y), atol=1e-10)
    with pytest.raises(UsageError, match="expected a batch that can be split by samples, found one that cannot"):
        objective.subset(5)


def test_batch_statistics_are_a_function_of_the_one_batch_that_is_given_as_such():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh(), nn.Linear(6, 3))
    x, y = data()
    objective = Objective(net, nn.CrossEntropyLoss(), [(x, y)], dtype="float64")
    np.testing.assert_allclose(
        objective.hvp(torch.eye(objective.dim)), dense_hessian(net, nn.CrossEntropyLoss(), x, y), atol=1e-9
    )
    with pytest.raises(NumericalError, match="mixes the batch"):
        Objective(net, nn.CrossEntropyLoss(), (x, y)).value()


class Returns(nn.Module):
    def __init__(self, how) -> None:
        super().__init__()
        self.net, self.how = nn.Linear(8, 3), how

    def forward(self, x: Tensor):
        return self.how(self.net(x))


OUTPUTS = {
    "one in a tuple": lambda o: (o,),
    "beside features": lambda o: (o.new_zeros(len(o), 7, 5), o),
    "a dictionary": lambda o: {"logits": o, "hidden": o * 2},
    "one in a dictionary": lambda o: {"prediction": o},
    "beside whole numbers": lambda o: (o, o.argmax(1)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_tensor_that_the_loss_takes_is_found_in_what_a_model_returns(name):
    torch.manual_seed(0)
    net = Returns(OUTPUTS[name])
    x, y = data()
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    assert objective.value().value == pytest.approx(F.cross_entropy(net.net(x), y).item(), rel=1e-6)
    np.testing.assert_allclose(objective.hvp(torch.eye(27)), dense_hessian(net.net, nn.CrossEntropyLoss(), x, y), atol=1e-11)


def test_two_tensors_that_the_loss_would_take_are_not_guessed_among():
    with pytest.raises(UsageError, match=r"expected the model to return one tensor .* found 2 tensors that it takes"):
        Objective(Returns(lambda o: (o, 2 * o)), nn.CrossEntropyLoss(), data())


def test_complex_buffers_keep_their_imaginary_part_and_complex_weights_are_refused():
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)
            self.register_buffer("turn", torch.polar(torch.ones(4), torch.arange(4.0)))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.view_as_real(torch.view_as_complex(x.view(-1, 4, 2)) * self.turn).flatten(1))

    torch.manual_seed(0)
    net, (x, y) = Rotary(), data()
    for dtype in ("float32", "float64"):
        found = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype=dtype).value().value
        assert found == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-6)
    net.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(UsageError, match="expected real weights, found complex ones in phase"):
        Objective(net, nn.CrossEntropyLoss(), (x, y))


def test_a_part_that_does_not_survive_a_copy_is_noticed():
    """A layer with a `__deepcopy__` of its own that forgets what its forward pass does."""
    torch.manual_seed(0)

    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) * 2

        def __deepcopy__(self, memo):
            twin = Closed()
            twin.fc = copy.deepcopy(self.fc, memo)
            twin.forward = lambda x: twin.fc(x)
            return twin

    with pytest.raises(NumericalError, match="expected a copy of model and loss in float32 that gives the same outputs"):
        Objective(Closed(), nn.CrossEntropyLoss(), data())


def test_the_caller_s_model_is_evaluated_and_put_back():
    model, loss, x, y = CASES[3].make(0)
    model.train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    state, torch_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    Objective(model, loss, (x, y))
    assert [m.training for m in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, state[k]) for k, a in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_older_weight_norm_can_be_copied():
    torch.manual_seed(1)
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer = nn.utils.weight_norm(nn.Linear(8, 6))
    net = nn.Sequential(layer, nn.Tanh(), nn.Linear(6, 2))
    x, y = data(outputs=None)
    net(x)
    kept = net[0].weight
    objective = Objective(net, nn.MSELoss(), (x, y), dtype="float64")
    assert objective.value().value == pytest.approx(F.mse_loss(net(x), y).item(), rel=1e-6)
    assert kept.grad_fn is not None
    assert "0.weight_g" in objective.layout.names


def test_torchscript_is_told():
    plain = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    with pytest.raises(UsageError, match="expected Python modules, found a TorchScript program"):
        Objective(torch.jit.script(plain), nn.CrossEntropyLoss(), data())


def test_one_sample_whose_loss_is_not_a_number_is_named():
    x, y = data()

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, z: Tensor) -> Tensor:
            o = self.fc(z)
            return torch.where((z == x[23].to(z)).all(1, keepdim=True), torch.full_like(o, torch.nan), o)

    objective = Objective(Masked(), nn.CrossEntropyLoss(), (x, y), batch_size=10)
    assert np.isnan(objective.value().value), "a value is what it is"
    for ask in (objective.check_finite, objective.gradient, lambda: objective.hvp(torch.ones(27))):
        with pytest.raises(NumericalError, match="expected a finite loss at the trained weights, found nan for sample 23"):
            ask()


def test_values_need_no_second_derivative():
    """A straight-through estimator: its forward pass is a function, its gradient is not that function's."""

    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            return w.sign()

        @staticmethod
        def backward(ctx, g):
            return g

    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(F.linear(x, Sign.apply(self.a.weight), self.a.bias)))

    torch.manual_seed(0)
    objective = Objective(Binary(), nn.CrossEntropyLoss(), data())
    assert objective.value().stderr > 0
    assert objective.value(objective.theta + 0.1).value > 0
    with pytest.raises(NumericalError, match="expected the gradient to agree with a finite difference of the loss"):
        objective.gradient()


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.sigmoid(x)
        h.mul_(2)
        return h


def test_an_error_of_autograd_names_the_layer():
    net = nn.Sequential(nn.Linear(8, 6), InPlace(), nn.Linear(6, 3))
    with pytest.raises(NumericalError, match=r"found in 1: .*modified by an inplace operation.*; write out of place"):
        Objective(net, nn.CrossEntropyLoss(), data()).gradient()

    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).log_softmax(-1)

    def ctc(o: Tensor, t: Tensor) -> Tensor:
        return F.ctc_loss(o.transpose(0, 1), t, torch.full((len(t),), 10), torch.full((len(t),), 3))

    speech = Objective(Speech(), ctc, (torch.randn(6, 10, 8), torch.randint(1, 5, (6, 3))))
    assert speech.value().value > 0
    with pytest.raises(NumericalError, match="found in the loss: derivative for aten::_ctc_loss_backward is not implemented"):
        speech.gradient()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to_sparse(), "expected dense tensors, found a sparse"),
        (lambda x: x.to("meta"), "found a tensor without data"),
    ],
    ids=["sparse", "meta"],
)
def test_tensors_that_no_batch_can_be_cut_from(change, message):
    x, y = data()
    with pytest.raises(UsageError, match=message):
        Objective(nn.Linear(8, 3), nn.CrossEntropyLoss(), (change(x), y))


def test_an_objective_kept_through_training_says_that_the_model_moved_on():
    net, (x, y) = nn.Linear(8, 3), data()
    kept = Objective(net, nn.CrossEntropyLoss(), (x, y))
    first = kept.value().value
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    with pytest.warns(UserWarning, match="the model has changed since this Objective was made"):
        assert kept.value().value == first
    assert Objective(net, nn.CrossEntropyLoss(), (x, y)).value().value < first


class Similar(nn.Module):
    """Similarities of all pairs in a batch, times a scalar weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(8, 3), nn.Linear(8, 3), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.normalize(self.a(x), dim=1) @ F.normalize(self.b(x), dim=1).T


def test_similarities_within_a_batch_are_one_whole_and_a_weight_may_be_a_scalar():
    """As in CLIP, whose temperature has no dimension."""
    torch.manual_seed(0)
    net, x = Similar(), data(12)[0]
    y = torch.arange(12)
    objective = Objective(net, nn.CrossEntropyLoss(), [(x, y)], dtype="float64")
    np.testing.assert_allclose(
        objective.hvp(torch.eye(objective.dim)), dense_hessian(net, nn.CrossEntropyLoss(), x, y), atol=1e-10
    )
    with pytest.raises(
        UsageError, match=r"found shape \(2, 2\) for two samples and \(3, 3\) for three; data that cannot be split"
    ):
        Objective(net, nn.CrossEntropyLoss(), (x, y))


class Spectral(nn.Module):
    """A filter in Fourier space, whose weights are pairs viewed as complex numbers; `before` so many others come first."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.shift, self.filter, self.head = nn.Parameter(torch.randn(before)), nn.Parameter(torch.randn(5, 2)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x + self.shift.sum(), dim=1) * torch.view_as_complex(self.filter)
        return self.head(torch.fft.irfft(spectrum, n=8, dim=1).tanh())


@pytest.mark.parametrize("before", [1, 2])
def test_pairs_of_weights_may_be_viewed_as_complex_wherever_they_lie_in_theta(before):
    torch.manual_seed(0)
    net, (x, y) = Spectral(before), data()
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    products = objective.hvp(torch.eye(objective.dim))
    weights = list(net.double().parameters())
    slopes = torch.autograd.grad(F.cross_entropy(net(x.double()), y), weights, create_graph=True)
    rows = [
        torch.cat([t.reshape(-1) for t in torch.autograd.grad(s, weights, retain_graph=True, materialize_grads=True)])
        for slope in slopes
        for s in slope.reshape(-1)
    ]
    np.testing.assert_allclose(products, torch.stack(rows), atol=1e-10)


class Holding(nn.Module):
    """A network with tables and a layer that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table, self.others, self.cache = nn.Linear(8, 3), torch.linspace(0.5, 2, 3), [nn.Linear(8, 8)], {}

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] not in self.cache:
            self.cache[x.shape[1:]] = torch.linspace(-1, 1, x.shape[1]).to(x)
        return self.fc(self.others[0](x + self.cache[x.shape[1:]])) * self.table


def test_what_a_module_holds_beside_parameters_and_buffers_is_converted_too():
    torch.manual_seed(0)
    net, (x, y) = Holding(), data()
    expected = F.cross_entropy(net(x), y)  # fills the cache, in float32
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    assert objective.value().value == pytest.approx(expected.item(), rel=1e-6)
    whole = copy.deepcopy(net)
    for t in (whole.others[0].weight, whole.others[0].bias, whole.table, *whole.cache.values()):
        t.data = t.data.double()
        t.requires_grad_(False)
    np.testing.assert_allclose(
        objective.hvp(torch.eye(objective.dim)), dense_hessian(whole, nn.CrossEntropyLoss(), x, y), atol=1e-10
    )
    assert {t.dtype for t in (net.table, net.others[0].weight, *net.cache.values())} == {torch.float32}


class Traces(nn.Module):
    """A forward pass that leaves traces of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.seen, self.named = nn.Linear(8, 3), [], {"calls": [0]}
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out = self.last = self.fc(x)
        self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
        self.seen.append(out)
        self.named["calls"].append(len(self.seen))
        return out


def test_nothing_that_a_forward_pass_leaves_behind_stays_in_the_caller_s_model():
    torch.manual_seed(0)
    net = Traces()
    net(data()[0])
    last, mean, names = net.last, net.mean, set(vars(net))
    for _ in range(2):  # a second copy is made of what a first one left
        objective = Objective(net, nn.CrossEntropyLoss(), data())
        assert objective.evaluate_many(objective.theta.repeat(2, 1))
        assert objective.hvp(objective.theta).norm() > 0
    assert net.last is last
    assert net.mean is mean
    assert set(vars(net)) == names
    assert (int(net.calls), len(net.seen), net.named) == (1, 1, {"calls": [0, 1]})


def test_a_hook_that_keeps_what_it_sees_in_the_caller_s_model_does_not_stand_in_the_way():
    """Its closure knows the caller's model, not the copy; what a vmap saw is left there, and cannot be copied."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    net.seen = []
    net[0].register_forward_hook(lambda module, args, output: net.seen.append(output))
    first = Objective(net, nn.CrossEntropyLoss(), data())
    first.evaluate_many(first.theta.repeat(2, 1))
    second = Objective(net, nn.CrossEntropyLoss(), data(), dtype="float64")
    assert second.value().value == pytest.approx(first.value().value, rel=1e-6)


class Inverted(nn.Module):
    """A layer that inverts its weight once, as normalizing flows do in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.eye(8) + 0.1 * torch.randn(8, 8)), nn.Linear(8, 3)
        self.inverse: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.inverse is None:
            self.inverse = torch.linalg.inv(self.weight)
        return self.head(x @ self.inverse)


def test_a_network_that_goes_by_what_it_kept_of_other_weights_is_refused():
    torch.manual_seed(0)
    with pytest.raises(NumericalError, match="expected outputs that follow the weights, found that 0 reuses values"):
        Objective(nn.Sequential(Inverted(), nn.Tanh()), nn.CrossEntropyLoss(), data())


class Detached(nn.Module):
    """A weight over its norm, which is detached as in DoRA; or a gradient that is halved on its way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.head, self.how = nn.Linear(8, 6), nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "detached":
            w = self.fc.weight
            return self.head(torch.tanh(F.linear(x, w / w.norm(dim=1, keepdim=True).detach(), self.fc.bias)))
        out = self.head(torch.tanh(self.fc(x)))
        return Halved.apply(out) if self.how == "halved" else out


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g / 2


@pytest.mark.parametrize("how", ["detached", "halved", "whole"])
def test_a_gradient_that_is_not_the_loss_s_is_refused(how):
    """Halved at the output it is symmetric, consistent with its own differences, and half of the truth."""
    torch.manual_seed(0)
    objective = Objective(Detached(how), nn.CrossEntropyLoss(), data())
    if how == "whole":
        assert objective.gradient().norm() > 0
        return
    with pytest.raises(
        NumericalError, match=r"the gradient to agree with a finite difference of the loss, found them \d+% apart"
    ):
        objective.gradient()


class Rounded(nn.Module):
    """Many rectifiers and a norm in float32, as in T5."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.to(torch.float32).pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt()
        return x * scale


@pytest.mark.parametrize("seed", range(3))
def test_kinks_beside_a_float32_inside_are_no_wrong_derivative(seed):
    torch.manual_seed(seed)
    layers = [layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.ReLU(), Rounded())]
    net, (x, y) = nn.Sequential(*layers, nn.Linear(8, 3)), data()
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    exact = dense_hessian(net, nn.CrossEntropyLoss(), x, y)
    np.testing.assert_allclose(objective.hvp(torch.eye(objective.dim)), exact, atol=1e-6 * np.abs(exact).max())
    assert 1e-9 < objective.rounding < 1e-6


def test_a_kink_within_every_step_is_no_coarse_rounding():
    """As in a network of millions of rectifiers, here by kinks that lie where the weights are."""

    class Kinked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)
            self.register_buffer("at", self.fc.weight.detach().double() * (1 + 3e-8))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + (self.fc.weight - self.at).abs().sum(1)

    torch.manual_seed(0)
    objective = Objective(Kinked(), nn.CrossEntropyLoss(), data(), dtype="float64")
    assert output_rounding(objective._engine) < 1e-15


def test_samples_that_are_objects_or_texts_are_not_cut():
    """Structures of an interatomic potential, or texts, in a list: half of the targets would be held against all of them."""

    class OfTexts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, texts: list[str]) -> Tensor:
            return self.fc(torch.tensor([[len(t), t.count("a")] for t in texts]).to(self.fc.weight))

    torch.manual_seed(0)
    net, texts, y = OfTexts(), ["a", "banana", "cherry", "apple a day"], torch.randn(4, 1)
    batches = [(texts[:3], y[:3]), (texts[3:], y[3:])]
    whole = F.mse_loss(net(texts), y)
    for batch_size in (None, 1):
        objective = Objective(net, nn.MSELoss(), batches, dtype="float64", batch_size=batch_size)
        assert objective.value().value == pytest.approx(whole.item(), rel=1e-6)
        assert objective.gradient().norm() > 0
        assert objective.batch_sizes == [3, 1]


def test_a_little_that_is_rounded_counts_as_coarsely_as_it_is():
    """As attention that is nearly uniform: outputs hardly show its float32, gradients do."""

    class Faint(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.fc, self.factor = nn.Linear(8, 3), factor
            self.register_buffer("constant", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            out = self.fc(x)
            return out * self.constant.float() + self.factor * torch.softmax(out, 1, dtype=torch.float32)

    torch.manual_seed(0)
    found = {f: Objective(Faint(f), nn.CrossEntropyLoss(), data(), dtype="float64").rounding for f in (1e-3, 0.0)}
    assert found[1e-3] == pytest.approx(2**-25)
    assert found[0.0] < 1e-12, "a constant that is cast rounds nothing"


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x)


def test_a_network_under_autocast_says_how_coarsely_it_computes():
    torch.manual_seed(0)
    net, (x, y) = Autocast(), data()
    assert Objective(net, nn.CrossEntropyLoss(), (x, y)).rounding == pytest.approx(2**-9)
    with pytest.warns(
        UserWarning, match="computes internally in less than float32, as under autocast, but not when it is given float64"
    ):
        objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    assert objective.value().value == pytest.approx(F.cross_entropy(net.body.double()(x.double()), y).item(), rel=1e-9)


def test_looking_for_the_loss_s_tensor_warns_of_nothing(recwarn):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.attention(x, x, x)

    x, y = torch.randn(6, 5, 8), torch.randn(6, 5, 8)
    found = Objective(Attention(), nn.MSELoss(), (x, y)).value().value
    assert found == pytest.approx(F.mse_loss(attention(x, x, x)[0], y).item(), rel=1e-5)
    assert not [w for w in recwarn if "target size" in str(w.message)]


def test_a_network_of_two_types_is_told_to_keep_the_wider():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).double())

    assert Objective(Mixed(), nn.CrossEntropyLoss(), data(), dtype="float64").value().value > 0
    with pytest.raises(UsageError, match="if the network requires a dtype, pass dtype='float64'"):
        Objective(Mixed(), nn.CrossEntropyLoss(), data())
