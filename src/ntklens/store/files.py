"""Files that appear whole or not at all."""

import secrets
from pathlib import Path

LEFTOVER_SECONDS = 3600.0


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it: readers see the old text or the new one, whole."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
