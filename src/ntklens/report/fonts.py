"""One subset of a font for all PDFs of a report: another one for each takes a seventh of the time of its figures."""

import contextlib
from collections.abc import Collection, Iterator
from string import ascii_letters, digits
from typing import Any


@contextlib.contextmanager
def share_subsets() -> Iterator[None]:
    """Let the PDFs that are written inside embed one subset of a font: of letters, digits and what was drawn so far.

    matplotlib has no setting for that. Where its subsets are not of glyphs, each file keeps its own.
    """
    from matplotlib.backends import _backend_pdf_ps as backend
    from matplotlib.font_manager import get_font

    if not hasattr(backend, "SubsetResults"):
        yield
        return
    make = backend.get_glyphs_subset
    shared: dict[Any, tuple[set[Any], Any]] = {}

    def share(path: Any, glyphs: Collection[Any]) -> contextlib.AbstractContextManager[Any]:
        if path not in shared or not shared[path][0].issuperset(glyphs):
            font = get_font(path)
            common = {font.get_char_index(ord(letter)) for letter in ascii_letters + digits} - {0}
            known = {*glyphs, *(shared[path][0] if path in shared else common)}
            shared[path] = known, opened.enter_context(make(path, known))
        return contextlib.nullcontext(shared[path][1])

    with contextlib.ExitStack() as opened:
        backend.get_glyphs_subset = share  # type: ignore[assignment]
        try:
            yield
        finally:
            backend.get_glyphs_subset = make
