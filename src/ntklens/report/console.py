"""Where tables and lines are printed."""

import os
import sys

from rich.console import Console

FILE_WIDTH = 160


def make_console() -> Console:
    """Return the console; wide where neither a terminal nor COLUMNS limits it, so that tables in a file are whole.

    It prints what it is given: a name such as `[x]` or `:a:` is no markup.
    """
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else FILE_WIDTH
    return Console(soft_wrap=True, width=width, markup=False, highlight=False, emoji=False)
