"""What an optimizer does with a gradient, read from its settings and its state, neither of which is touched.

Every optimizer here moves the weights by -eta times an update d. Around a minimum its steps are a linear recurrence, stable
while the curvature, in its own metric, is below an edge that its settings give.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError

_KNOWN = "SGD, Adam, AdamW and RMSprop of torch.optim"


@dataclass(frozen=True, eq=False)
class Stepping:
    """How an optimizer steps at the moment of reading.

    Attributes:
        words: name and settings, e.g. "SGD, lr 0.02, momentum 0.9".
        lr: eta, the largest learning rate of the groups.
        edge: bound on the curvature of the plain Hessian, beyond which the steps diverge; None with `no_edge`.
        own_edge: the same for the Hessian in the optimizer's metric, P^-1/2 (H + decay) P^-1/2; None with `no_own_edge`.
        preconditioner: (P,) the diagonal P: 1 for SGD, sqrt(v) + eps with its corrections for the adaptive ones, divided by the
            group's learning rate relative to eta, infinity for a weight that is not in the optimizer. None before a first step.
        decay: (P,) weight decay that is added to the gradient.
        no_edge, no_own_edge: why an edge is missing; "" if it is there.
        update: gradient (P,), weights (P,) -> (P,) the update d that the next step would make of this gradient, so that
            the weights would move by -eta d.
    """

    words: str
    lr: float
    edge: float | None
    own_edge: float | None
    preconditioner: Float[Tensor, " P"] | None
    decay: Float[Tensor, " P"]
    no_edge: str
    no_own_edge: str
    update: Callable[[Tensor, Tensor], Tensor]


def read(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> Stepping:
    """How an optimizer steps now.

    Args:
        optimizer: SGD, Adam, AdamW or RMSprop of torch.optim, also inside the wrappers of Lightning and Accelerate.
        weights: the parameters in the order of the flat vector.

    Returns:
        Stepping, in the dtype of the weights. The bound on the curvature is c / eta: c = 2 for gradient descent, (2 + 2 b) for
        heavy ball of momentum b, divided by 1 - dampening, (2 + 2 b) / (1 + 2 b) with Nesterov, (2 + 2 b) for RMSprop, and
        (2 + 2 b_1) / (1 - b_1) for Adam, 38 at b_1 = 0.9. Weight decay w that is added to the gradient lowers it by w; one that
        is decoupled multiplies it by 1 - eta w / 2, with the largest w of the groups.

    Raises:
        UsageError: another optimizer, one that maximizes, or one that holds none of these weights.

    Reference: Cohen et al. 2021, arXiv:2103.00065 (SGD with momentum); Cohen et al. 2022, arXiv:2207.14484, whose P of Adam
    includes the correction 1 - b_1^t of the momentum.
    """
    optimizer = unwrapped_optimizer(optimizer)
    rule = _RULES.get(type(optimizer))
    if rule is None:
        raise UsageError(
            f"expected an optimizer whose edge is known, found {type(optimizer).__name__}", fix=f"it is for {_KNOWN}"
        )
    where = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    groups = [where.get(id(p)) for p in weights]
    used = [g for g in groups if g is not None]
    if not used:
        raise UsageError(
            "expected an optimizer of this model's weights, found one that holds none of them",
            fix="pass the one that trains it",
        )
    if any(g.get("maximize") for g in used):
        raise UsageError("expected an optimizer that minimizes, found maximize=True", fix="negate the loss")
    parts = [None if g is None else rule(g, optimizer.state.get(p) or {}) for p, g in zip(weights, groups, strict=True)]
    held = [part for part in parts if part is not None]
    lr = max(part.lr for part in held)
    own = held[0].factor if len({part.factor for part in held}) == 1 else None
    no_own = "" if own is not None else "the groups differ in momentum"
    plain, no_plain = _plain_edge(held, parts, lr)
    ready = all(part.divisor is not None for part in held)
    return Stepping(
        _words(type(optimizer).__name__, used),
        lr,
        plain,
        None if own is None or not lr else own / lr * min(part.shrink for part in held),
        _flat([math.inf if part is None else part.metric(lr) for part in parts], weights) if ready else None,
        _flat([0.0 if part is None else part.decay for part in parts], weights),
        no_plain,
        no_own if ready else "the optimizer has no second moments before its first step",
        _updater(parts, weights, lr),
    )


def preconditioner(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Float[Tensor, " P"]:
    """The diagonal P by which an optimizer divides the gradient, in the order of `Objective(model, ...).theta`.

    Raises:
        UsageError: as `read`, or the optimizer has made no step yet.
    """
    trainable = [p for p in model.parameters() if p.requires_grad] or list(model.parameters())
    found = read(optimizer, trainable)
    if found.preconditioner is None:
        raise UsageError(
            "expected an optimizer that has made a step, found one without second moments", fix="train a step first"
        )
    return found.preconditioner


def unwrapped_optimizer(optimizer: Any) -> Any:
    """The optimizer inside the wrappers of other libraries."""
    while type(optimizer) not in _RULES and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


@dataclass(frozen=True, eq=False)
class _Part:
    """How one tensor steps: eta, c of c / eta, P, decay, (gradient, weights) -> update, what decoupled decay leaves of c."""

    lr: float
    factor: float
    divisor: Tensor | float | None
    decay: float
    update: Callable[[Tensor, Tensor], Tensor]
    shrink: float = 1.0

    def metric(self, lr: float) -> Tensor | float:
        """P relative to the largest learning rate."""
        assert self.divisor is not None  # the optimizer has made a step
        return self.divisor * (lr / self.lr if self.lr else math.inf)


Group = Mapping[str, Any]


def _sgd(group: Group, state: Mapping[str, Any]) -> _Part:
    lr, b, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
    damped, nesterov = float(group["dampening"]), bool(group["nesterov"])
    factor = (2 + 2 * b) / (1 + 2 * b if nesterov else 1 - damped if b else 1)

    def update(gradient: Tensor, weight: Tensor) -> Tensor:
        slope = gradient + decay * weight
        if not b:
            return slope
        buffer = state.get("momentum_buffer")
        moving = slope if buffer is None else b * buffer.detach() + (1 - damped) * slope
        return slope + b * moving if nesterov else moving

    return _Part(lr, factor, 1.0, decay, update)


def _adam(group: Group, state: Mapping[str, Any]) -> _Part:
    lr, (b1, b2), eps = float(group["lr"]), map(float, group["betas"]), float(group["eps"])
    decay, apart = float(group["weight_decay"]), bool(group.get("decoupled_weight_decay"))
    largest, step = bool(group["amsgrad"]), float(state.get("step", 0))

    def divisor(v: Tensor, t: float) -> Tensor:
        return (v / (1 - b2**t)).sqrt() + eps

    def update(gradient: Tensor, weight: Tensor) -> Tensor:
        slope = gradient if apart else gradient + decay * weight
        m, v = (state[k].detach() if state else torch.zeros_like(gradient) for k in ("exp_avg", "exp_avg_sq"))
        m, v = b1 * m + (1 - b1) * slope, b2 * v + (1 - b2) * slope.square()
        if largest and state:
            v = torch.maximum(v, state["max_exp_avg_sq"].detach())
        moved = m / (1 - b1 ** (step + 1)) / divisor(v, step + 1)
        return moved + decay * weight if apart else moved

    v = state.get("max_exp_avg_sq" if largest else "exp_avg_sq")
    metric = None if v is None or not bool(v.any()) else (1 - b1**step) * divisor(v.detach(), step)
    factor = (2 + 2 * b1) / (1 - b1)
    return _Part(lr, factor, metric, 0.0 if apart else decay, update, 1 - lr * decay / 2 if apart else 1.0)


def _rmsprop(group: Group, state: Mapping[str, Any]) -> _Part:
    lr, b, a, eps = (float(group[k]) for k in ("lr", "momentum", "alpha", "eps"))
    decay, centered = float(group["weight_decay"]), bool(group["centered"])

    def divisor(v: Tensor, mean: Tensor | None) -> Tensor:
        return (v if mean is None else v - mean.square()).sqrt() + eps

    def update(gradient: Tensor, weight: Tensor) -> Tensor:
        slope, zero = gradient + decay * weight, torch.zeros_like(gradient)
        v = a * state.get("square_avg", zero).detach() + (1 - a) * slope.square()
        mean = a * state.get("grad_avg", zero).detach() + (1 - a) * slope if centered else None
        scaled = slope / divisor(v, mean)
        return b * state.get("momentum_buffer", zero).detach() + scaled if b else scaled

    v = state.get("square_avg")
    metric = None if v is None or not bool(v.any()) else divisor(v.detach(), state["grad_avg"].detach() if centered else None)
    return _Part(lr, 2 + 2 * b, metric, decay, update)


_RULES: dict[type, Callable[[Group, Mapping[str, Any]], _Part]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}


def _plain_edge(held: Sequence[_Part], parts: Sequence[_Part | None], lr: float) -> tuple[float | None, str]:
    """The bound on the eigenvalues of H itself, if all weights step alike and none is divided by its own number."""
    if any(not isinstance(part.divisor, float) for part in held):
        return None, "the optimizer divides each gradient by its own scale: see preconditioned_lambda_max"
    if len(held) < len(parts):
        return None, "the optimizer leaves some weights fixed: see preconditioned_lambda_max"
    if len({(part.lr, part.factor, part.decay) for part in held}) > 1:
        return None, "the groups differ in learning rate, momentum or decay: see preconditioned_lambda_max"
    return (held[0].factor / lr - held[0].decay, "") if lr else (None, "the learning rate is 0")


def _flat(numbers: Sequence[Tensor | float], weights: Sequence[Tensor]) -> Float[Tensor, " P"]:
    """One number for each weight, from tensors or from one number for all of a tensor."""
    filled = [n if isinstance(n, Tensor) else torch.full_like(p, n) for n, p in zip(numbers, weights, strict=True)]
    return torch.cat([t.detach().reshape(-1) for t in filled])


def _updater(parts: Sequence[_Part | None], weights: Sequence[Tensor], lr: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The update of all weights in units of the largest learning rate."""

    def update(gradient: Tensor, theta: Tensor) -> Tensor:
        out, start = [], 0
        for part, p in zip(parts, weights, strict=True):
            here = slice(start, start := start + p.numel())
            g, w = (t[here].reshape(p.shape) for t in (gradient, theta))
            moved = torch.zeros_like(g) if part is None or not lr else part.lr / lr * part.update(g, w)
            out.append(moved.reshape(-1))
        return torch.cat(out)

    return update


def _words(name: str, groups: Sequence[Group]) -> str:
    """The optimizer's name, and the settings of its first group that are not zero."""
    shown = {"lr": "lr", "momentum": "momentum", "betas": "betas", "weight_decay": "weight decay", "nesterov": "nesterov"}
    first = {key: groups[0].get(key) for key in shown}
    told = [f"{word} {_said(first[key])}".replace(" True", "") for key, word in shown.items() if first[key]]
    different = len({float(g["lr"]) for g in groups}) > 1
    return ", ".join([name, *told]) + (" in the first of several groups" if different else "")


def _said(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, tuple):
        return " ".join(f"{float(v):g}" for v in value)
    return str(value) if isinstance(value, bool) else f"{float(value):g}"
