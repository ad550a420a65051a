"""From trajectories to numbers."""
