"""What a run tells whoever watches it."""

from collections.abc import Sequence
from typing import Any

import xarray as xr


class Tracker:
    """Watches the members of one ensemble; this one keeps silent. Subclasses show what they are told."""

    def start(self, seeds: Sequence[int], config: dict[str, Any], key: str) -> None:
        """Begin: the members' seeds, the resolved configuration and the run key."""

    def record(self, step: int, epoch: float, values: dict[str, Any], active: Any) -> None:
        """Take what was measured of every member (arrays with a leading axis of members), and who is still going."""

    def finish(self, seed: int, trajectory: xr.Dataset) -> None:
        """Take a member's published trajectory."""
