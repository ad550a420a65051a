"""Signals that ask a run to end, taken where it can be left in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, a closed terminal, a scheduler's SIGTERM, and what schedulers send some time before it.
NAMES = ("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR2")


class Stop:
    """Whether somebody asked this process to end."""

    def __init__(self) -> None:
        self.requested = False
        self.signals: list[int] = []  # those that asked, in their order

    def request(self, number: int | None = None) -> None:
        """Ask for the end, perhaps because of a signal; `check` will raise."""
        self.requested = True
        self.signals += [] if number is None else [number]

    def check(self) -> None:
        """Raise KeyboardInterrupt if the end was asked for; call it often."""
        if self.requested:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Note signals instead of raising wherever the program is, where a library may swallow it.

    A second Ctrl-C acts at once; other signals may come in any number while a checkpoint is written. Outside the main
    thread, where Python allows no handler, nothing changes.

    Yields:
      What the signals are noted in.
    """
    stop = Stop()

    def note(number: int, _frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.request(number)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup stays nohup
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
