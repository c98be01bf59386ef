"""Running the measures of one network: shared computations, time forecasts, saved results."""
