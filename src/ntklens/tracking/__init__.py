"""Where a run is shown while it runs."""

from ntklens.tracking.tracker import Tracker

__all__ = ["Tracker"]
