"""What does tracking=wandb cost?

1. Wall time of one job of 20 seeds in one process, tracking none and offline, in turns; without figures, too.
2. Of that, what a seed's run takes, and what a record takes beside it.
3. What the training process itself spends: on handing over a record online, and a finished seed.
4. Files and bytes that a run leaves on the disk.

    python benchmarks/tracking.py
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from timing import write_results

SEEDS, REPEATS = 20, 3
TOY = (
    "dataset=synthetic", "dataset.train_size=24", "dataset.test_size=20", "dataset.probe_size=8", "dataset.input_dim=5",
    "dataset.classes=3", "model.width=16", f"ensemble={SEEDS}",
)  # fmt: skip
MODES = {
    "none": ("tracking=none",),
    "offline": ("tracking.mode=offline",),
    "offline_without_figures": ("tracking.mode=offline", "tracking.figures=false"),
    "offline_without_figures_and_artifacts": (
        "tracking.mode=offline", "tracking.figures=false", "tracking.artifacts=false",
    ),
    "offline_one_run_for_all_seeds": ("tracking.mode=offline", "tracking.per_seed=false"),
}  # fmt: skip
SHORT, LONG = 20, 2000  # epochs: few records, and more


def run(folder: Path, name: str, *words: str) -> float:
    """Return the wall seconds of a job."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "ntklens.run", *TOY, f"name={name}", *words]
    environment = {key: value for key, value in os.environ.items() if key not in ("WANDB_MODE", "WANDB_API_KEY")}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def measure_jobs(folder: Path, epochs: int) -> tuple[dict[str, float], int]:
    """Return the median seconds of a job in each mode, called in turns, and its number of records."""
    import ntklens

    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    run(folder, f"warm-{epochs}", f"training.epochs={epochs}", "tracking=none")
    for repeat in range(REPEATS):
        for mode, words in MODES.items():
            seconds[mode].append(run(folder, f"{mode}-{epochs}-{repeat}", f"training.epochs={epochs}", *words))
    records = ntklens.load(folder / "multirun" / f"warm-{epochs}").sizes["record"]
    return {mode: float(np.median(times)) for mode, times in seconds.items()}, records


def measure_hand_over(records: int = 20_000) -> dict[str, float]:
    """Return what the process that trains spends on a record, and on a finished seed, while a writer takes neither."""
    from ntklens.wandb import tracker

    class Idle:
        online = True

        def show(self, *_: object) -> None:
            pass

        write = show

    tracker = tracker.WandbTracker("online", "ntklens", None, True, 15.0, 30.0, True, True)
    tracker.run, tracker.config, tracker.key, tracker.blocks = Path("/x/y"), {}, "k", {}
    tracker.sent, tracker.link = time.monotonic(), Idle()  # type: ignore[assignment]
    record = {f"variable_{number}": np.float32(number) for number in range(16)}
    started = time.perf_counter()
    for number in range(records):
        tracker.record(number % SEEDS, record, ["a", "b", "c"])
    each = (time.perf_counter() - started) / records
    started = time.perf_counter()
    for number in range(1000):
        tracker.finish(number, Path("/x"))
    return {"record_microseconds": 1e6 * each, "seed_microseconds": 1e3 * (time.perf_counter() - started)}


def measure_disk(folder: Path) -> dict[str, float]:
    """Return files and bytes of a run with its figure."""
    places = list((folder / "multirun" / f"offline-{SHORT}-0" / "wandb").glob("offline-run-*"))
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return {"files": len(files) / len(places), "bytes": sum(path.stat().st_size for path in files) / len(places)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (short, few), (long, many) = measure_jobs(folder, SHORT), measure_jobs(folder, LONG)
        added = {mode: [jobs[mode] - jobs["none"] for jobs in (short, long)] for mode in MODES if mode != "none"}
        plain = added["offline_without_figures"]
        answers = {
            "seeds": SEEDS,
            f"job_of_{few}_records_seconds": short,
            f"job_of_{many}_records_seconds": long,
            "added_by_a_seed_seconds": {mode: seconds[0] / SEEDS for mode, seconds in added.items()},
            "added_by_a_record_microseconds": 1e6 * (plain[1] - plain[0]) / (SEEDS * (many - few)),
            "training_process": measure_hand_over(),
            "disk_of_a_run": measure_disk(folder),
        }
    Console().print(answers)
    write_results("tracking", answers)


if __name__ == "__main__":
    main()
