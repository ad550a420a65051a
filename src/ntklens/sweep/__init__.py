"""Sweeps: the identity of a run; later its plan, states and launch."""
