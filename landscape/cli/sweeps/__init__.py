"""Many checkpoints in one table: items that processes claim, their records, the loop, and jobs of SLURM."""
