"""Where tables and lines are printed."""

import os
import sys
import textwrap

from rich.console import Console

from ntklens.config.lines import COMMAND

FILE_WIDTH = 160


def make_console() -> Console:
    """Return the console; wide where neither a terminal nor COLUMNS limits it, so that tables in a file are whole.

    It prints what it is given: a name such as `[x]` or `:a:` is no markup.
    """
    width = None if sys.stdout.isatty() or _is_width_given() else FILE_WIDTH
    return Console(soft_wrap=True, width=width, markup=False, highlight=False, emoji=False)


def _is_width_given() -> bool:
    return os.environ.get("COLUMNS", "").isdigit()


def print_sentence(console: Console, text: str, indent: int = 0) -> None:
    """Print text, where the width is known in lines that end between words; what holds a command stays whole.

    Args:
      console: of `make_console`.
      text: a sentence or several.
      indent: of all lines but the first.
    """
    if (console.is_terminal or _is_width_given()) and COMMAND not in text:
        hanging = " " * indent
        lines = textwrap.wrap(
            text, console.width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        )
        text = "\n".join(lines)
    console.print(text)
