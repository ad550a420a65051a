"""Everything that knows of SLURM."""
