"""Curvature of the loss in the network's outputs: what is left of the Hessian without the network's own derivatives."""

from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator, random_rows
from landscape.measures.registry import FUNCTION, NotDefined, measure
from landscape.objective import Objective
from landscape.results import Estimate, Sampling, Spent

# Outputs of a sample up to which every one is differentiated.
_EXACT = 512


@measure(
    "output_curvature",
    unit="loss / output^2",
    invariant_to=FUNCTION,
    reference="Martens 2020, arXiv:1412.1193, section 6; Schraudolph 2002",
    work=lambda objective, settings: {"output_curvature": Spent(forwards=1)},
    default=False,
)
def output_curvature(objective: Objective, *, probes: int = 64, generator: torch.Generator | None = None) -> Estimate:
    """Mean over samples of the trace of the loss's second derivative in the network's outputs.

    (1/N) sum_n tr d2 loss_n / d f(x_n)^2; for cross-entropy sum_c p_c (1 - p_c), averaged over samples, and over the tokens of
    a sample. It depends on the function, the loss and the data only, so that nothing that keeps the function moves it, not even
    a constant added to all logits; and it needs no units of the weights, and no real inputs. It is the middle factor of the
    Gauss-Newton matrix, mean J_n^T (d2 loss_n / d f^2) J_n. A network that fits its data with large logits has a small one, and
    then a small Hessian, however strongly its outputs change with the weights: print it beside a sharpness, to see which of
    the two factors differs between two networks.

    Args:
        objective: the network on its data; any inputs, any loss that is a mean over samples.
        probes: random directions if a sample has more than 512 outputs; below, every output has its own and nothing is random.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "samples", weighted as in the loss. With probes the standard error includes their noise, since every sample has
        its own. Of a loss without a second derivative, such as the absolute error, it is 0.

    Raises:
        UsageError: no probe.
        NotDefined: the loss is not a mean over samples.

    Cost: one forward pass, and a second derivative of the loss alone for each output or probe. The network is not
        differentiated.

    Accuracy: exact up to 512 outputs a sample; the second derivative is taken by autograd of the loss as it was given.

    Reference: the factor H_L of Martens 2020, arXiv:1412.1193, section 6, and of Schraudolph 2002.

    Example:
        Two logits that are equal: 2 * 1/2 * 1/2.
        >>> from torch import nn
        >>> net = nn.Linear(1, 2)
        >>> _ = net.weight.data.zero_(), net.bias.data.zero_()
        >>> output_curvature(Objective(net, nn.CrossEntropyLoss(), (torch.ones(2, 1), torch.tensor([0, 1])))).value
        0.5
    """
    if probes < 1:
        raise UsageError(f"expected at least 1 probe, found {probes}", fix="64 is usual")
    first = default_generator(generator).initial_seed()
    # One generator a probe, which all batches share: the numbers do not depend on how samples are split into batches.
    random = [torch.Generator().manual_seed(first + i) for i in range(probes)]

    def directions(output: Tensor) -> Iterator[Tensor]:
        """Unit vectors, one for each output of a sample, or random signs over the root of their number."""
        count = output[0].numel()
        if count <= _EXACT:
            for i in range(count):
                z = output.new_zeros(len(output), count)
                z[:, i] = 1.0
                yield z.reshape(output.shape)
            return
        for one in random:
            rows = random_rows(len(output), count, "rademacher", one, output.dtype, output.device)
            yield rows.reshape(output.shape) / probes**0.5

    traces = objective.output_forms(directions)
    if traces is None:
        raise NotDefined("expected a loss that is a mean over samples, found one that is not")
    weights = objective.sample_weights
    mean = float((weights * traces).sum() / weights.sum())
    sampling = Sampling.of(traces[None].cpu().numpy(), weights.cpu().numpy())
    return Estimate(mean, objective.standard_error(traces), "samples", len(traces), sampling=sampling)
