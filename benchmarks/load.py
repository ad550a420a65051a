"""Does `ntklens.load` stand a large sweep?

Seconds and peak memory of the first and the second load of made-up trajectories of realistic size (128 × 10
eigenvalues, 90 records, 12 of them with spectra, 3 layers), each in a process of its own, against xarray's own reader
one file at a time. The files are in the system's page cache.

    python benchmarks/load.py             # 10,000 trajectories: 2.5 GB below the folder for temporary files
    python benchmarks/load.py --files 1000
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table
from timing import write_results

from ntklens.recording.quantities import VARIABLES
from ntklens.recording.trajectory import build_trajectory
from ntklens.store.trajectory import FILE_NAME, LEVELS, publish_trajectory

SEEDS = 20
SIZES = {"layer": 3, "mode": 1280}
RECORDS, SPECTRA = 90, 12
SAMPLE = 100  # files that xarray reads
LOAD = """
import json, sys, time
from pathlib import Path
import ntklens
load = ntklens.load
started = time.perf_counter()
data = load(sys.argv[1])
loaded = time.perf_counter()
# getrusage would say the largest that the process was before it became this program, too.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
data.minimum_eigenvalues.values
print(json.dumps({
    "seconds": loaded - started,
    "processor_seconds": time.process_time(),
    "peak_bytes": 1024 * int(status["VmHWM"].split()[0]),
    "seconds_for_the_spectra_at_the_minima": time.perf_counter() - loaded,
}))
"""


def draw(generator: np.random.Generator, *leading: int) -> dict[str, np.ndarray]:
    return {
        name: generator.random((*leading, *(SIZES[dim] for dim in dims)), np.float32)
        for name, (dims, _) in VARIABLES.items()
    }


def leave_out_spectra(rows: dict[str, np.ndarray]) -> None:
    """Keep the spectra of a few records, as the schedule of a run does."""
    unmeasured = np.setdiff1d(np.arange(RECORDS), np.linspace(0, RECORDS - 1, SPECTRA).astype(int))
    for name in ("eigenvalues", "effective_rank", "effective_rank_traced"):
        rows[name][unmeasured] = np.nan


def make_trajectory(generator: np.random.Generator, width: int, seed: int) -> xr.Dataset:
    rows = draw(generator, RECORDS)
    leave_out_spectra(rows)
    minimum = {name: array[-1] for name, array in rows.items()}
    config = {"model": {"width": width, "depth": 2}, "dataset": {"name": "mnist", "train_size": 100}, "seed": seed}
    attributes = {
        "state": "done", "seed": seed, "config": config, "run_key": f"{width:016x}", "N": 128, "C": 10,
        "parameters": 795 * width, "seconds": 10.0, "constant_output": False, "packed_seeds": list(range(SEEDS)),
        "host": "node", "device": "cpu", "python": "3.12", "packages": {"jax": "0"}, "git_commit": "0" * 40,
        "git_dirty": False, "data": {"name": "mnist"}, "data_checksum": "0" * 64,
    }  # fmt: skip
    return build_trajectory(rows, minimum, draw(generator, len(LEVELS)), ["a", "b", "c"], attributes)


def write_sweep(folder: Path, files: int) -> None:
    generator = np.random.default_rng(0)
    units = itertools.product(range(16, 16 + files), range(SEEDS))
    for width, seed in itertools.islice(units, files):
        publish_trajectory(make_trajectory(generator, width, seed), folder / f"w{width}" / f"seed={seed}")


def measure_load(folder: Path) -> dict:
    command = [sys.executable, "-c", LOAD, str(folder)]
    started = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout) | {"seconds_of_the_process": time.perf_counter() - started}


def measure_xarray(folder: Path) -> float:
    """Seconds a file."""
    paths = sorted(folder.glob(f"*/seed=*/{FILE_NAME}"))[:SAMPLE]
    started = time.perf_counter()
    for path in paths:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            data.load()
    return (time.perf_counter() - started) / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sweep"
        write_sweep(folder, files)
        answers = {
            "files": files,
            "bytes_of_the_trajectories": sum(path.stat().st_size for path in folder.glob(f"*/seed=*/{FILE_NAME}")),
            "first": measure_load(folder),
            "second": measure_load(folder),
            "bytes_of_the_combined_file": (folder / "combined.nc").stat().st_size,
            "xarray_seconds_a_file": measure_xarray(folder),
        }
    table = Table("", "seconds", "ms a file", "peak memory", title=f"{files} trajectories")
    for load in ("first", "second"):
        seconds, peak = answers[load]["seconds"], answers[load]["peak_bytes"]
        table.add_row(f"{load} load", f"{seconds:.2f}", f"{1e3 * seconds / files:.2f}", f"{peak / 1e6:.0f} MB")
    each = answers["xarray_seconds_a_file"]
    table.add_row("xarray, one by one", f"{each * files:.0f}", f"{1e3 * each:.1f}", "")
    Console().print(table)
    write_results("load", answers)


if __name__ == "__main__":
    main()
