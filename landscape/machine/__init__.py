"""What the machine does for every wing: processes, memory, files, progress, and the settings of arithmetic."""
