"""The step that a run's rule chose: step.json in the run's directory, written once.

Several processes may choose at once, and two machines need not agree to the last bit: the first to write decides.
"""

import contextlib
import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

from ntklens.store.files import put_in_place

FILE_NAME = "step.json"


def read_step(run: Path, checksum: str | None = None) -> dict[str, Any]:
    """Return what a run's step.json says; nothing if there is none that can be read.

    Args:
        run: the run's directory.
        checksum: of the data; what was chosen on other data counts as nothing. None: whatever the data.
    """
    try:
        stored = json.loads((run / FILE_NAME).read_text(encoding="utf-8"))
        rate = stored["learning_rate"]
        stored["learning_rate"] = float(rate)
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    if not stored["learning_rate"] > 0 or (checksum is not None and stored.get("data_checksum") != checksum):
        return {}
    return stored


def store_step(run: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Write a run's step.json unless there is one of the same data, and return what it then holds.

    Args:
        run: the run's directory; made if absent.
        chosen: plain values, `learning_rate` and `data_checksum` among them.

    Returns:
        What step.json holds.

    Raises:
        OSError: if it cannot be written.
    """
    run.mkdir(parents=True, exist_ok=True)
    checksum = chosen["data_checksum"]
    if stored := read_step(run, checksum):
        return stored
    path, temporary = run / FILE_NAME, run / f".{FILE_NAME}-{secrets.token_hex(4)}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(chosen, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not put_in_place(temporary, path) and not read_step(run, checksum):
            temporary.replace(path)  # in place of one that is damaged, or of data whose results were invalidated
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return read_step(run, checksum)


def describe_choice(pilot: dict[str, Any]) -> str:
    """Return how a step was chosen, in a few words, from what step.json holds."""
    start, rounds = pilot.get("start") or {}, pilot.get("rounds") or []
    over = f", divided by {pilot['step_divisor']:g}" if pilot.get("step_divisor", 1) != 1 else ""
    if not rounds:
        return f"c (1 − momentum)/λ_0, λ_0 = {start.get('sharpness', math.nan):.3g}{over}"
    tried = ", ".join(map(_describe_round, rounds))
    return f"pilot: {pilot.get('status')}; {tried}{over}"


def _describe_round(one: dict[str, Any]) -> str:
    """Return what came of a pilot's round: n1, unless training diverged."""
    rate, end = f"{one['learning_rate']:.3g}", one.get("end")
    return f"diverged at {rate}" if end == "diverged" else f"n1 = {one['near']} at {rate}{' (late)' * (end == 'late')}"
