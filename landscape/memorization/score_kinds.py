"""The scores of single samples by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from landscape.errors import UsageError


@dataclass(frozen=True)
class ScoreKind:
    """What a score is.

    Attributes:
        summary: its definition in a line.
        unit: of its values.
        reference: the paper that proposes it.
        follows: whether it needs the checkpoints of a training run.
    """

    summary: str
    unit: str
    reference: str
    follows: bool = False


_ARPIT, _GARG = "Arpit et al. 2017, arXiv:1706.05394", "Garg, Ravikumar, Roy 2024, arXiv:2307.05831"

# In the order of every table.
SCORES: dict[str, ScoreKind] = {
    "loss": ScoreKind("Loss of the sample.", "loss", ""),
    "loss_sensitivity": ScoreKind("l1 norm of the gradient of its loss in its input.", "loss / input", _ARPIT),
    "input_curvature": ScoreKind("Curvature of its loss in its input, E ||H z||^2 over signs z.", "loss^2 / input^4", _GARG),
    "gauss_newton_trace": ScoreKind(
        "Trace of its Gauss-Newton matrix in the weights, tr J_n^T A_n J_n.", "loss / weight^2", "Martens 2020, arXiv:1412.1193"
    ),
    "top_curvature": ScoreKind(
        "Curvature of its loss along the top eigenvector v of the mean Hessian, v^T H_n v.", "loss / weight^2", ""
    ),
    "cumulative_loss": ScoreKind(
        "Sum of its losses over training.", "loss", "Ravikumar, Soufleri, Hashemi, Roy 2025, ICML", follows=True
    ),
    "mean_loss_sensitivity": ScoreKind("Mean of loss_sensitivity over training.", "loss / input", _ARPIT, follows=True),
    "mean_input_curvature": ScoreKind("Mean of input_curvature over training.", "loss^2 / input^4", _GARG, follows=True),
    "forgetting": ScoreKind(
        "How often it turned from right to wrong; never right counts as the number of checkpoints.",
        "events",
        "Toneva et al. 2019, arXiv:1812.05159",
        follows=True,
    ),
}  # fmt: skip


def wanted_scores(names: str | Sequence[str] | None, trajectory: bool) -> list[str]:
    """The scores to compute, in the order of `SCORES`: None for all that need no more than is given.

    Raises:
        UsageError: an unknown name, or one that needs the checkpoints of training and there are none.
    """
    if names is None:
        return [name for name, kind in SCORES.items() if trajectory or not kind.follows]
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in SCORES:
            raise UsageError(f"expected a score, found {name!r}", fix=f"choose among {', '.join(SCORES)}")
        if SCORES[name].follows and not trajectory:
            raise UsageError(
                f"expected the checkpoints of training for {name}, found none",
                fix="train with --keep-every 1 and pass --trajectory DIR",
            )
    if not listed:
        raise UsageError("expected at least one score, found none", fix=f"choose among {', '.join(SCORES)}")
    return [name for name in SCORES if name in listed]
