"""Results as files of other tools: netCDF, VTK, CSV."""
