"""Where results lie."""

from pathlib import Path

NAME_LENGTH = 100  # of the directory of a run of a loop of one's own, without its key


def find_seed_directory(run: Path, seed: int) -> Path:
    """Return where a seed's results lie."""
    return run / f"seed={seed}"
