"""Critical sample ratio: the share of samples close to a boundary between predicted classes."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.machine.arithmetic import exact_math
from landscape.measures.function.function_space import Network, classifier
from landscape.measures.registry import FUNCTION, NotDefined, measure
from landscape.objective import Objective
from landscape.results import Estimate, Spent


@measure(
    "critical_sample_ratio",
    unit="share of samples",
    invariant_to=FUNCTION,
    reference="Arpit et al. 2017, arXiv:1706.05394",
    work=lambda objective, settings: {"critical_sample_ratio": Spent(forwards=3 * settings["iterations"])},
    default=False,
)
def critical_sample_ratio(
    objective: Objective,
    *,
    alpha: float = 0.25,
    beta: float = 0.2,
    radius: float = 0.3,
    iterations: int = 20,
    span: float = 0.0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Share of samples that have another predicted class within a small box around them.

    CSR = #{n : some x with ||x - x_n||_inf <= r has argmax f(x) != argmax f(x_n)} / N. Each sample is searched by Langevin
    adversarial sample search (LASS): x <- x + alpha sign(grad -log p_k(x)) + beta z, with z standard normal and k the class
    predicted at x_n. Each step is projected onto the box; the search ends when the prediction changes. The ratio is higher
    for networks that have memorized noise.

    Args:
        objective: a classifier on its data: outputs (N, C), targets class indices, which are not used.
        alpha, beta, radius: step, noise and half-width r of the box, on the scale 0 to 255 of the paper's images.
        iterations: steps of the search.
        span: the range of the network's inputs that corresponds to 255; 0 takes max - min of the given inputs, over all
            channels together. Set it to compare networks on different samples.
        generator: generator of the noise; default seed 0. The noise is drawn sample by sample on the CPU, so that it
            depends on neither device nor batch size.

    Returns:
        Kind "proportion" of N samples, with Wilson's interval. The search may miss critical samples, so the true ratio may be
        larger.

    Raises:
        NotDefined: the inputs are not real numbers, the network is not a classifier, or all inputs are the same number.
        UsageError: a negative step, radius or span, or no iteration.

    Cost: at most `iterations` + 1 forward and `iterations` backward passes; samples found critical are dropped.

    Accuracy: a lower bound. Exact for one input. In many dimensions a tenth of the coordinates is off the faces of the box at
        any step, because the noise of 0.2 exceeds the step of 0.25 that often.

    Reference: Arpit et al. 2017. Their program follows all samples together and stops at the first step that finds fewer than
    20 new critical ones (100 steps at most), so that its ratio depends on N; here the number of steps is fixed. -log p_k is
    replaced by log sum_{j != k} exp f_j - f_k, of which it is an increasing function: the signs are the same, and do not
    vanish if p_k rounds to 1.

    Example:
        The class of x changes at 0. Two of four points are within 0.3 of it.
        >>> from torch import nn
        >>> net = nn.Linear(1, 2, bias=False)
        >>> net.weight.data = torch.tensor([[1.0], [-1.0]])
        >>> x = torch.tensor([[-1.0], [-0.2], [0.1], [2.0]])
        >>> objective = Objective(net, nn.CrossEntropyLoss(), (x, torch.tensor([1, 1, 0, 0])))
        >>> critical_sample_ratio(objective, span=255.0).value
        0.5
    """
    if not (math.isfinite(radius) and radius > 0):
        raise UsageError(f"expected radius above 0, found {radius:g}", fix="the paper uses 0.3")
    for name, setting in {"alpha": alpha, "beta": beta, "span": span}.items():
        if not (math.isfinite(setting) and setting >= 0):
            raise UsageError(f"expected {name} of at least 0, found {setting:g}", fix="leave it at its default")
    if iterations < 1:
        raise UsageError(f"expected at least 1 iteration, found {iterations}", fix="the default is 20")
    data = classifier(objective)
    span = span or float(max(x.max() for _, x, _ in data.batches) - min(x.min() for _, x, _ in data.batches))
    if span == 0:
        raise NotDefined(
            "expected inputs that differ, found the same number everywhere", fix="set span, the range that corresponds to 255"
        )
    random, unit = default_generator(generator), span / 255
    with exact_math(derivatives=True, recurrent=data.recurrent):
        searches = [_Search.of(network, x, unit * radius) for network, x, _ in data.batches]
        # Steps in the outer loop, batches in the inner one: the noise of a sample depends on its index alone.
        for _ in range(iterations):
            for search in searches:
                search.step(unit * alpha, unit * beta, random)
        critical = torch.cat([search.critical.cpu() for search in searches])
    n, share = len(critical), float(critical.double().mean())
    error = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None
    return Estimate(share, error, "proportion", n, reason=f"at least this share: a search of {iterations} steps")


@dataclass
class _Search:
    """LASS on the samples of one batch.

    Attributes:
        network: maps inputs to outputs (B, C).
        centre: the samples (B, ...).
        radius: half-width of the box around each sample, in the unit of the inputs.
        x: current points of the search.
        predicted: the predicted class at the centre.
        critical: whether another class has been found.
    """

    network: Network
    centre: Float[Tensor, "B ..."]
    radius: float
    x: Float[Tensor, "B ..."]
    predicted: Int[Tensor, " B"]
    critical: Bool[Tensor, " B"]

    @classmethod
    def of(cls, network: Network, x: Tensor, radius: float) -> "_Search":
        """A search that starts at the samples."""
        predicted = network(x).argmax(1)
        return cls(network, x, radius, x.clone(), predicted, torch.zeros_like(predicted, dtype=torch.bool))

    def step(self, alpha: float, beta: float, generator: torch.Generator) -> None:
        """One step of the samples that are not critical yet. All samples draw noise, so that the random stream is fixed."""
        noise = torch.stack([torch.randn(self.x.shape[1:], generator=generator) for _ in self.x])
        rows = (~self.critical).nonzero().squeeze(1)
        if not len(rows):
            return
        here = self.x[rows].requires_grad_()
        outputs, own = self.network(here), self.predicted[rows, None]
        if outputs.requires_grad:
            doubt = outputs.scatter(1, own, -math.inf).logsumexp(1) - outputs.gather(1, own).squeeze(1)
            uphill = torch.autograd.grad(doubt.sum(), here, materialize_grads=True)[0].sign()
        else:
            uphill = torch.zeros_like(here)
        centre = self.centre[rows]
        moved = here.detach() + alpha * uphill + beta * noise.to(here)[rows]
        moved = torch.minimum(torch.maximum(moved, centre - self.radius), centre + self.radius)
        self.x[rows] = moved
        self.critical[rows] = self.network(moved).argmax(1) != self.predicted[rows]
