"""The spectra of mini-batches as an xarray Dataset."""

from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import UsageError
from landscape.results import MinibatchSpectra

if TYPE_CHECKING:
    import xarray


def minibatch_dataset(found: MinibatchSpectra) -> "xarray.Dataset":
    """`lambda_max` and `lambda_min` of every mini-batch, residuals and signs of lambda_min, along "minibatch".

    Raises:
        UsageError: xarray is not installed.
    """
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise UsageError("expected xarray, found that it is not installed", fix="pip install xarray") from error
    unit = {"units": "loss / weight^2"}
    columns = {
        "lambda_max": ("minibatch", found.largest, unit),
        "lambda_min": ("minibatch", found.smallest, unit),
        "lambda_max_residual": ("minibatch", found.residuals[:, 0], unit),
        "lambda_min_residual": ("minibatch", found.residuals[:, 1], unit),
        "lambda_min_sign": (
            "minibatch",
            found.signs.astype(np.int8),
            {"comment": "0: within its residual of 0, cannot be told"},
        ),
        "converged": ("minibatch", found.converged.all(1).astype(np.int8), {}),
    }
    return xarray.Dataset(
        columns,
        coords={"minibatch": np.arange(len(found))},
        attrs={
            "samples_in_a_minibatch": found.size,
            "samples": found.samples,
            "lambda_max_of_all_samples": found.whole_largest.value,
            "lambda_min_of_all_samples": found.whole_smallest.value,
        },
    )
