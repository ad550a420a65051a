"""Ctrl-C and SIGTERM, taken where a run can be left in order."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], None]]:
    """Note SIGINT and SIGTERM instead of raising wherever the program is, where a library may swallow it.

    A second signal acts at once. Outside the main thread, where Python allows no handler, nothing changes.

    Yields:
      A function that raises KeyboardInterrupt if a signal came; call it often.
    """
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    def check() -> None:
        if received:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
