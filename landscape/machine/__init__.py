"""Services of the machine that every wing uses: processes, memory, files, progress, and the settings of arithmetic."""
