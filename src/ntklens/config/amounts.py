"""What is meant by a number with letters, `5min`, or by a range, `32-128`, where a plain number is expected."""

import re

MINUTES, SECONDS, GIBIBYTES = "minutes", "seconds", "GiB"
UNITS = {  # of keys that have one
    "ntk.memory_limit": GIBIBYTES,
    "checkpoint.minutes": MINUTES,
    "checkpoint.grace": SECONDS,
    "tracking.interval": SECONDS,
    "tracking.patience": SECONDS,
    **dict.fromkeys([f"hydra.launcher.{name}" for name in ("minutes", "most_minutes", "task_minutes")], MINUTES),
}
FACTORS = {  # unit → what others are in it, by their first letter
    GIBIBYTES: {"k": 2.0**-20, "m": 2.0**-10, "t": 2.0**10},
    MINUTES: {"s": 1 / 60, "h": 60.0},
    SECONDS: {"m": 60.0, "h": 3600.0},
}
COUNTS = {"k": 1e3, "K": 1e3, "M": 1e6}  # of what has no unit
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
UNCLEAR = "em"  # behind a number without a unit: half an exponent; a million, or a thousandth
MOST_CONSECUTIVE, MOST_WHOLE = 8, 10_000  # values of a range that are listed one by one


def name_unit(key: str) -> str:
    """Return `, in minutes`, say, of a key that has a unit; nothing of another."""
    return f", in {UNITS[key]}" if key in UNITS else ""


def read_meant(key: str, text: str) -> str:
    """Return the value to type, or values separated by commas, in a key's unit; empty if the text is neither.

    Args:
      key: as typed.
      text: `10k`, `4GB`, `300 s`, `32-128`, `32..128`, `32:128`.
    """
    if match := re.fullmatch(rf"({NUMBER})\s*([^\W\d_]+)", text):
        unit, letters = UNITS.get(key), match[2]
        if unit is None and letters in UNCLEAR:
            return ""
        factor = FACTORS[unit].get(letters[0].lower(), 1.0) if unit else COUNTS.get(letters, 1.0)
        return _format(float(match[1]) * factor)
    if match := re.fullmatch(rf"({NUMBER})\s*(?:[-–:]|\.{{2,3}}|to)\s*({NUMBER})", text):
        return ",".join(map(_format, _list_between(float(match[1]), float(match[2]), whole=key == "seed")))
    return ""


def _list_between(first: float, last: float, whole: bool) -> list[float]:
    """Return the values of a range: one by one if they are few or the `whole` is meant, else by doubling the first."""
    most = MOST_WHOLE if whole else MOST_CONSECUTIVE
    if first.is_integer() and last.is_integer() and 0 <= last - first < most:
        return [first + more for more in range(round(last - first) + 1)]
    values = [first]
    while first >= 1 and 2 * values[-1] < last:
        values.append(2 * values[-1])
    return [*values, last]


def _format(value: float) -> str:
    return str(round(value)) if value.is_integer() else f"{value:.6g}"
