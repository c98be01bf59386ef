"""One network's measures in one table: shared computations, forecasts, and what is kept of them."""
