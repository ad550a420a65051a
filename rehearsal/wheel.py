"""Installs a wheel in fresh environments, as a stranger would, and runs the main job from another folder.

    python rehearsal/wheel.py dist/ntklens-….whl     # Pythons found, both ends of JAX's range
    python rehearsal/wheel.py dist/ntklens-….whl --python python3.12 --jax lowest

The highest JAX is what pip chooses by the wheel's own range, the lowest the first release of that range. A job
trains two seeds, a sweep of two widths follows in processes of its own, and a report of it. Ends with status 1 if
one of them fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

PYTHONS = ("python3.11", "python3.12", "python3.13")
ENDS = ("lowest", "highest")
TOY = ("training.epochs=20", "ensemble=2", "dataset.train_size=50", "dataset.probe_size=8", "tracking=none")
LINES = (
    TOY,
    ("-m", "model.width=8,16", "name=widths", *TOY),
    ("task=report", "name=widths", "tracking=none"),
)  # fmt: skip
KEPT = {"PATH", "LANG", "TMPDIR"}  # of this environment, beside what pip needs to find packages
UNWANTED = ("tensorflow", "tf2jax", "neural_tangents")


def find_pythons() -> list[str]:
    """Return the interpreters of `PYTHONS` that can make an environment."""
    found = []
    for name in PYTHONS:
        path = shutil.which(name)
        probe = [path, "-c", "import ensurepip, sys, venv; print(sys.executable)"]
        result = subprocess.run(probe, capture_output=True, text=True, check=False) if path else None
        if result and result.returncode == 0:  # the interpreter itself: a version manager's name needs its environment
            found.append(result.stdout.strip())
    return found


def read_lowest(wheel: Path) -> str:
    """Return the requirement of the lowest JAX that a wheel's metadata allows."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    (line,) = re.findall(r"^Requires-Dist: (jax[<>=!~].*)$", metadata, flags=re.MULTILINE)
    (low,) = re.findall(r">=([\d.]+)", line)
    return "jax==" + ".".join([*low.split("."), "0"][:3])


def rehearse(wheel: Path, python: str, end: str) -> str:
    """Install a wheel beside one end of JAX's range, run the main job, and return a line of what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        elsewhere = Path(folder, "elsewhere")
        for path in (home, elsewhere):
            path.mkdir()
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or re.match(r"PIP_|SSL_|https?_proxy$|OPENBLAS_", name, re.IGNORECASE)
        }
        environment |= {"HOME": str(home), "MPLBACKEND": "agg"}

        def run(*command: str | Path) -> str:
            result = subprocess.run(
                command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
            return result.stdout

        start = time.perf_counter()
        run(python, "-m", "venv", Path(folder, "venv"))
        binaries = Path(folder, "venv", "bin")
        wanted = [read_lowest(wheel)] if end == "lowest" else []
        run(binaries / "python", "-m", "pip", "install", "--quiet", "--no-compile", wheel, *wanted)
        installed = time.perf_counter()
        for words in LINES:
            run(binaries / "ntklens", *words)
        done = time.perf_counter()
        seeds = len(list(elsewhere.glob("multirun/*/*/seed=*/trajectory.nc")))
        pages = len(list(elsewhere.glob("multirun/widths/report/report.html")))
        if (seeds, pages) != (6, 1):
            raise RuntimeError(f"{seeds} trajectories and {pages} reports, not 6 and 1")
        packages = Path(folder).glob("venv/lib/*/site-packages/*.dist-info")
        if unwanted := {path.name.partition("-")[0].lower() for path in packages}.intersection(UNWANTED):
            raise RuntimeError(f"brings {', '.join(sorted(unwanted))}")
        words = "import jax, ntklens, sys; print('Python %s.%s' % sys.version_info[:2], 'JAX', jax.__version__)"
        versions = run(binaries / "python", "-c", words).strip()
        return f"{versions}: installed in {installed - start:.0f} s, ran in {done - installed:.0f} s"


def main() -> int:
    """Rehearse each pair of a Python and an end of JAX's range, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", action="append", help="an interpreter; by default all that are found")
    parser.add_argument("--jax", action="append", choices=ENDS, help="an end of the range; by default both")
    words = parser.parse_args()
    pythons = words.python or find_pythons()
    failed = 0
    for python in pythons:
        for end in words.jax or ENDS:
            try:
                print(f"wheel: {rehearse(words.wheel.resolve(), python, end)}", flush=True)
            except RuntimeError as error:
                failed += 1
                print(f"wheel: {python}, {end} JAX: failed: {error}", file=sys.stderr, flush=True)
    return 1 if failed or not pythons else 0


if __name__ == "__main__":
    sys.exit(main())
