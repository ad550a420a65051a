"""Where results lie."""

from pathlib import Path


def find_seed_directory(run: Path, seed: int) -> Path:
    """Return where a seed's results lie."""
    return run / f"seed={seed}"
