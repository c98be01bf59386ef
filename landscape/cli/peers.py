"""PyHessian on the user's network. PyHessian is under the GPL, so it is an optional extra, imported only on request."""

from typing import TYPE_CHECKING

from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.objective import Objective


def pyhessian_eigenvalues(objective: "Objective", k: int, max_iter: int = 300, tol: float = 1e-5) -> list[float]:
    """The k eigenvalues of largest magnitude by PyHessian's deflated power iteration, on the data as one batch.

    Raises:
        UsageError: PyHessian is not installed.
    """
    try:
        from pyhessian import hessian
    except ImportError:
        raise UsageError("expected PyHessian, found it not installed", fix="pip install 'landscape-sharpness[peers]'") from None
    model, loss, (inputs, target) = objective.plain()
    values, _ = hessian(model, loss, data=(inputs, target), cuda=objective.device.type == "cuda").eigenvalues(
        maxIter=max_iter, tol=tol, top_n=k
    )
    return [float(v) for v in values]
