"""Where tables and lines are printed."""

from rich.console import Console


def make_console() -> Console:
    """Return the console; wide where no terminal limits it, so that tables in a file are whole."""
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=160)
