"""Export of results as NetCDF, VTK and CSV files."""
