"""Where a run is shown while it runs."""

from ntklens.tracking.tracker import Tracker, end_tracking

__all__ = ["Tracker", "end_tracking"]
