"""Where a run is shown while it runs."""

from ntklens.tracking.tracker import Tracker, begin_tracking, end_tracking

__all__ = ["Tracker", "begin_tracking", "end_tracking"]
