"""What does a sweep cost beside training?

1. Seconds from the command line to the plan of 1,000 configurations × 20 seeds.
2. Wall time per trajectory of a toy sweep, against one process per job of one seed, as many at a time as the sweep has.
3. Seconds of `task=status` at 20,000 units.
4. Seconds from the start of a process to its first update, for the second job of a shape, with and without the
   compilation cache.

    python benchmarks/sweep.py             # 50 configurations in question 2
    python benchmarks/sweep.py --whole     # all 1,000: a quarter of an hour
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from timing import write_results

SEEDS = 20
TOY = (
    "dataset=synthetic", "dataset.train_size=24", "dataset.test_size=20", "dataset.probe_size=8", "dataset.input_dim=5",
    "dataset.classes=3", "training.epochs=20",
)  # fmt: skip
FIRST_STEP = """
import time; started = time.time()
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from ntklens.config.schemas import find_config_directory, register_schemas
register_schemas()
with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
    cfg = compose("config", overrides=sys.argv[2:])
from ntklens.signals import Stop
from ntklens.jobs.compute import compute_seeds
from ntklens.jobs.watcher import Watcher
class First(Watcher):
    def advance(self, count, note):
        if count:
            print(time.time() - started)
            stop.request()
stop = Stop()
try:
    compute_seeds(cfg, Path(sys.argv[1]), [0], stop, First())
except KeyboardInterrupt:
    pass
"""


def run(*words: str, folder: Path) -> tuple[float, str]:
    """Return the wall seconds of `python -m ntklens.run`, and what it printed."""
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "ntklens.run", *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, result.stdout


def list_axes(configurations: int) -> list[str]:
    """25 widths, and learning rates, which share the programs of a width."""
    rates = ",".join(f"{rate:.3g}" for rate in np.geomspace(1e-4, 1e-2, configurations // 25))
    return ["model.width=range(4,29)", f"optimizer.learning_rate={rates}"]


def measure_plan(folder: Path) -> float:
    return run("-m", *list_axes(1000), *TOY, f"ensemble={SEEDS}", "task=plan", folder=folder)[0]


def measure_trajectories(folder: Path, configurations: int) -> dict:
    seconds, _ = run("-m", *list_axes(configurations), *TOY, f"ensemble={SEEDS}", "name=toys", folder=folder)
    again, _ = run("-m", *list_axes(configurations), *TOY, f"ensemble={SEEDS}", "name=toys", folder=folder)
    cores, jobs = len(os.sched_getaffinity(0)), 8
    words = [sys.executable, "-m", "ntklens.run", *TOY, "ensemble=1", "name=alone"]
    started = time.perf_counter()
    for first in range(0, jobs, cores):
        batch = [
            subprocess.Popen([*words, f"seed={first + k}"], cwd=folder, stdout=subprocess.DEVNULL) for k in range(cores)
        ]
        assert all(process.wait() == 0 for process in batch)
    alone = (time.perf_counter() - started) / jobs
    each = seconds / (configurations * SEEDS)
    return {
        "configurations": configurations, "seconds": seconds, "seconds_per_trajectory": each,
        "second_launch_seconds": again, "seconds_per_process_of_one_seed": alone, "times_faster": alone / each,
    }  # fmt: skip


def measure_status(folder: Path, units: int = 20_000) -> float:
    """Of copies of one real unit."""
    (source,) = (folder / "multirun" / "alone").glob("*/seed=0")
    root = folder / "multirun" / "many"
    runs = []
    for number in range(units // SEEDS):
        place = root / f"run-{number:04d}"
        runs.append({"run": place.name, "key": "", "axes": {"model.width": number}, "seeds": [[0, SEEDS - 1]]})
        for seed in range(SEEDS):
            shutil.copytree(source, place / f"seed={seed}")
    plan = {"version": 1, "command": "python -m ntklens.run -m", "configurations": runs}
    (root / "plan.json").write_text(json.dumps(plan))
    return float(np.median([run("task=status", "name=many", folder=folder)[0] for _ in range(3)]))


def measure_first_step(folder: Path) -> dict:
    def time_first_step(place: str, cache: bool) -> float:
        words = ["dataset=digits", "model.width=256", "model.depth=3", f"paths.results={folder}/{place}"]
        environment = os.environ | ({} if cache else {"JAX_ENABLE_COMPILATION_CACHE": "false"})
        command = [sys.executable, "-c", FIRST_STEP, f"{folder}/{place}/run-{time.time_ns()}", *words]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    time_first_step("first", True)
    with_cache = [time_first_step("first", True) for _ in range(5)]
    without = [time_first_step("second", False) for _ in range(5)]
    return {"with_cache": float(np.median(with_cache)), "without_cache": float(np.median(without))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="all 1,000 configurations in question 2")
    whole = parser.parse_args().whole
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answers = {
            "plan_of_1000_configurations_seconds": measure_plan(folder),
            "trajectories": measure_trajectories(folder, 1000 if whole else 50),
            "status_of_20000_units_seconds": measure_status(folder),
            "first_step_seconds": measure_first_step(folder),
        }
    Console().print(answers)
    write_results("sweep", answers)


if __name__ == "__main__":
    main()
