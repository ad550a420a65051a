"""Where tables and lines are printed."""

import os
import sys

from rich.console import Console


class SteadyConsole(Console):
    """A console whose work goes on when nobody reads its output any more, as behind `| head`."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console() -> Console:
    """Return the console; wide where no terminal limits it, so that tables in a file are whole."""
    console = SteadyConsole(soft_wrap=True)
    return console if console.is_terminal else SteadyConsole(soft_wrap=True, width=160)
