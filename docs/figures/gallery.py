"""The pictures of the examples: each script of examples/ runs in a folder of its own, and its picture is kept.

`python docs/figures/gallery.py` makes all, which takes some minutes on two cores; names behind it choose some.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = Path(__file__).parent / "examples"


def draw(name: str) -> None:
    """Run an example in an empty folder, keep its picture and print how long it took."""
    environment = {**os.environ, "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), count_processor_seconds()
        subprocess.run([sys.executable, ROOT / "examples" / f"{name}.py"], cwd=folder, env=environment, check=True)
        seconds, processor = time.perf_counter() - start, count_processor_seconds() - before
        print(f"{name}: {seconds:.0f} s, {processor:.0f} of a processor", flush=True)
        PICTURES.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / f"{name}.png", PICTURES / f"{name}.png")


def count_processor_seconds() -> float:
    """Return the processor time of all processes that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in (ROOT / "examples").glob("*.py")):
        draw(name)
