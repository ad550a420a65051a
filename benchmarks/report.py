"""How long does `task=report` take, where does the time go, and how much memory does it need?

Made-up trajectories of realistic size (128 × 10 eigenvalues, 90 records, 12 of them with spectra, 3 layers) with laws
of width built in: 50 and 200 of them, over widths and two depths, and, on request, many over widths alone. Seconds are
those of the processor (`time.process_time`), the clock's stand beside them; other programs on the machine slow both, so
a loop of plain Python is timed, too. Imports are measured apart.

    python benchmarks/report.py
    python benchmarks/report.py --many 10000   # 2.5 GB below the folder for temporary files
"""

import argparse
import json
import operator
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from load import LEVELS, RECORDS, SIZES, draw, leave_out_spectra, write_sweep
from rich.console import Console
from rich.table import Table
from timing import write_results

from ntklens.recording.trajectory import build_trajectory
from ntklens.store.trajectory import publish_trajectory

WIDTHS, DEPTHS = (32, 64, 128, 256, 512), (2, 3)
REPEATS = 3  # of which the quickest counts: what else runs makes processor seconds longer, never shorter
BESIDE_IMPORTS = operator.itemgetter("processor_seconds_beside_imports")
PARTS = ("imports", "load", "analyse", "charts", "figures", "page")
MEASURE = """
import json, sys, time
started, clock = time.process_time(), time.perf_counter()
import warnings
from pathlib import Path
import h5py, jinja2, matplotlib.backends.backend_agg, matplotlib.backends.backend_pdf, matplotlib.image, plotly.offline
import ntklens.tasks.report
from ntklens.store.load import load
from ntklens.analysis.study import analyse
from ntklens.report import write
from ntklens.report.charts import build_charts
warnings.simplefilter("ignore")
seconds, last = {}, [started]


def mark(part):
    now = time.process_time()
    seconds[part] = seconds.get(part, 0.0) + now - last[0]
    last[0] = now


def around(name, part):
    function = getattr(write, name)
    def measured(*arguments):
        mark("page")
        result = function(*arguments)
        mark(part)
        return result
    setattr(write, name, measured)


mark("imports")
around("build_charts", "charts")
around("draw_chart", "figures")
data = load(sys.argv[1])
mark("load")
study = analyse(data, ["sweep"])
mark("analyse")
page = write.write_report(study, Path(sys.argv[1]) / "report")
mark("page")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "processor_seconds": seconds,
    "processor_seconds_beside_imports": sum(seconds.values()) - seconds["imports"],
    "seconds": time.perf_counter() - clock,
    "peak_bytes": 1024 * int(status["VmHWM"].split()[0]),
    "bytes_of_the_page": page.stat().st_size,
    "figures": len(list((page.parent / "figures").glob("*.pdf"))),
}))
"""


def write_grid(folder: Path, files: int) -> None:
    """Write trajectories over widths and two depths, Tr Θ affine and Γ a power law in the width."""
    generator, seeds = np.random.default_rng(0), files // (len(WIDTHS) * len(DEPTHS))
    step = np.concatenate([[0.0], np.geomspace(1, 300, RECORDS - 1)])
    grown = 1 - np.exp(-step / 60)
    for width in WIDTHS:
        for depth in DEPTHS:
            for seed in range(seeds):
                rows, noise = draw(generator, RECORDS), 1 + 0.03 * generator.standard_normal()
                rows |= {"step": step, "epoch": step, "train_loss": 2.3 * np.exp(-3 * grown) * noise}
                test = (2.3 - (1 + 0.05 * np.log(width)) * grown) * noise + 0.3 * (step / 300) ** 2
                rows |= {"test_loss": test, "selection_loss": test, "test_accuracy": 0.9 * grown}
                rows["trace"] = (2e4 + 60 * width) * noise * (1 + 400 / (width + 100) * grown)
                rows["trace_layer"] = rows["trace"][:, None] * np.array([0.2, 0.3, 0.5])
                rows["effective_rank"] = 60 * width**0.2 * (1 - 0.5 * grown) * noise
                rows["eigenvalues"] = np.sort(rows["eigenvalues"], axis=1)[:, ::-1]
                minimum = {name: values[int(test.argmin())] for name, values in rows.items()}
                leave_out_spectra(rows)
                config = {"model": {"width": width, "depth": depth}, "dataset": {"train_size": 100}, "seed": seed}
                attributes = {
                    "state": "done", "seed": seed, "config": config, "run_key": f"{width:08x}{depth:08x}", "N": 128,
                    "C": 10, "parameters": 1, "seconds": 1.0, "constant_output": False, "data": {"name": "mnist"},
                    "data_checksum": "0" * 64, "packages": {"jax": "0"},
                }  # fmt: skip
                trajectory = build_trajectory(rows, minimum, draw(generator, len(LEVELS)), ["a", "b", "c"], attributes)
                publish_trajectory(trajectory, folder / f"w{width}-{depth}" / f"seed={seed}")


def measure_report(folder: Path) -> dict:
    assert set(SIZES) == {"layer", "mode"}
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], check=True, capture_output=True, text=True)
    return json.loads(result.stdout) | {"seconds_of_the_process": time.perf_counter() - started}


def measure_python() -> float:
    """Return processor seconds of ten million turns of a loop: how fast this machine runs plain Python now."""
    started, total = time.process_time(), 0
    for number in range(10_000_000):
        total += number * number % 7
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=0)
    many = parser.parse_args().many
    answers = {}
    for files, write in ((50, write_grid), (200, write_grid), *([(many, write_sweep)] if many else [])):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "sweep"
            write(folder, files)
            repeats = 1 if files == many else REPEATS
            answers[str(files)] = min((measure_report(folder) for _ in range(repeats)), key=BESIDE_IMPORTS)
    table = Table("trajectories", *PARTS, "beside imports", "figures", "clock", "memory", title="processor seconds")
    for files, one in answers.items():
        parts = [f"{one['processor_seconds'].get(part, 0.0):.2f}" for part in PARTS]
        table.add_row(files, *parts, f"{one['processor_seconds_beside_imports']:.2f}", str(one["figures"]),
                      f"{one['seconds']:.0f} s", f"{one['peak_bytes'] / 1e6:.0f} MB")  # fmt: skip
    Console(width=140).print(table)
    write_results("report", {"processor_seconds_of_a_loop": measure_python(), **answers})


if __name__ == "__main__":
    main()
