"""Made-up trajectories with a known shape, for tests of what reads them."""

from pathlib import Path

import numpy as np
import xarray as xr

from ntklens.recording.quantities import VARIABLES
from ntklens.recording.trajectory import build_trajectory
from ntklens.store.trajectory import LEVELS, publish_trajectory


def make_trajectory(
    seed: int = 0,
    records: int = 6,
    layers: int = 2,
    modes: int = 4,
    state: str = "done",
    config: dict | None = None,
    attributes: dict | None = None,
    **values: np.ndarray,
) -> xr.Dataset:
    """Random numbers in every variable but those given; the minimum is the last record."""
    generator = np.random.default_rng(seed)
    sizes = {"layer": layers, "mode": modes}

    def draw(*leading: int) -> dict[str, np.ndarray]:
        return {name: generator.random((*leading, *(sizes[d] for d in dims))) for name, (dims, _) in VARIABLES.items()}

    rows = draw(records) | {"step": np.arange(records, dtype=float), "epoch": np.arange(records, dtype=float)} | values
    minimum = {name: array[-1] for name, array in rows.items()}
    own = {"state": state, "seed": seed, "config": config or {"model": {"width": 8}, "seed": seed}}
    names = [f"hidden_{layer}" for layer in range(layers - 1)] + ["readout"]
    return build_trajectory(rows, minimum, draw(len(LEVELS)), names, own | (attributes or {}))


def publish_made_up(directory: Path, seed: int) -> None:
    """For a process of its own."""
    publish_trajectory(make_trajectory(seed=seed), directory)
