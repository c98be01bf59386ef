"""Measures of sharpness: a registry and one file per family. A new measure needs one file and one import here."""

# isort: split  (the order from here on is the order of every table)
from landscape.measures.hessian.eigenvalues import adaptive_lambda_max, lambda_max, lambda_min, layer_relative_lambda_max
from landscape.measures.hessian.preconditioned import preconditioned_eigenpair
from landscape.measures.registry import MEASURES, Measure, NotDefined, chosen, measure
from landscape.measures.running.marks import surviving
from landscape.measures.running.measuring import measure_all
from landscape.measures.running.saved_measures import Kept
from landscape.measures.running.stationarity import stationarity
from landscape.measures.running.table import provenance, sharpness
from landscape.measures.running.time_forecast import Forecast, forecast, room

# isort: split
from landscape.measures.hessian.traces import adaptive_trace, frobenius, layer_relative_trace, trace, weight_curvature

# isort: split
from landscape.measures.hessian.row_wise import row_lambda_max, row_trace

# isort: split
from landscape.measures.perturbation.epsilon_sharpness import keskar, keskar_relative

# isort: split
from landscape.measures.perturbation.sharpness_aware import asam, asam_published, sam, sam_linf

# isort: split
from landscape.measures.perturbation.adaptive_sharpness import (
    adaptive_average,
    adaptive_worst,
    adaptive_worst_m,
    first_order_adaptive_linf,
)

# isort: split
from landscape.measures.perturbation.critical_sharpness import critical_sharpness, critical_sharpness_along

# isort: split
from landscape.measures.perturbation.geodesic_sharpness import geodesic_sharpness, geodesic_trace

# isort: split
from landscape.measures.hessian.relative_flatness import relative_flatness

# isort: split
from landscape.measures.perturbation.pac_bayes import pac_bayes, pac_bayes_magnitude

# isort: split
from landscape.measures.hessian.information_matrices import (
    empirical_fisher_lambda_max,
    empirical_fisher_trace,
    fisher_lambda_max,
    fisher_rao,
    fisher_trace,
    gauss_newton_lambda_max,
    gauss_newton_trace,
)

# isort: split
from landscape.measures.capacity.path_norm import path_norm

# isort: split
from landscape.measures.capacity.norms import frobenius_product, spectral_product

# isort: split
from landscape.measures.function.function_space import input_margin, logit_norm

# isort: split
from landscape.measures.function.critical_samples import critical_sample_ratio

# isort: split
from landscape.measures.function.output_curvature import output_curvature

__all__ = [
    "MEASURES",
    "Forecast",
    "Kept",
    "Measure",
    "NotDefined",
    "adaptive_average",
    "adaptive_lambda_max",
    "adaptive_trace",
    "adaptive_worst",
    "adaptive_worst_m",
    "asam",
    "asam_published",
    "chosen",
    "critical_sample_ratio",
    "critical_sharpness",
    "critical_sharpness_along",
    "empirical_fisher_lambda_max",
    "empirical_fisher_trace",
    "first_order_adaptive_linf",
    "fisher_lambda_max",
    "fisher_rao",
    "fisher_trace",
    "forecast",
    "frobenius",
    "frobenius_product",
    "gauss_newton_lambda_max",
    "gauss_newton_trace",
    "geodesic_sharpness",
    "geodesic_trace",
    "input_margin",
    "keskar",
    "keskar_relative",
    "lambda_max",
    "lambda_min",
    "layer_relative_lambda_max",
    "layer_relative_trace",
    "logit_norm",
    "measure",
    "measure_all",
    "output_curvature",
    "pac_bayes",
    "pac_bayes_magnitude",
    "path_norm",
    "preconditioned_eigenpair",
    "provenance",
    "relative_flatness",
    "room",
    "row_lambda_max",
    "row_trace",
    "sam",
    "sam_linf",
    "sharpness",
    "spectral_product",
    "stationarity",
    "surviving",
    "trace",
    "weight_curvature",
]
