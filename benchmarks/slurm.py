"""What does SLURM cost beside training? On the rehearsal cluster (make slurm-up), or a real one.

1. Seconds from the command line until 1,000 configurations × 20 seeds of a toy are submitted, and the jobs they make.
2. Wall time per trajectory from there to the end, and a second launch that submits nothing.
3. Seconds to submit more tasks than MaxArraySize allows in one array.

    make slurm-up; export SLURM_CONF=/var/lib/ntklens-rehearsal/etc/slurm.conf
    python benchmarks/slurm.py hydra.launcher.side_by_side=2    # further words go to every launch: two cores
"""

import re
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
    "dataset.classes=3", "training.epochs=20", f"ensemble={SEEDS}", "model.width=range(4,29)",
    f"optimizer.learning_rate={','.join(f'{rate:.3g}' for rate in np.geomspace(1e-4, 1e-2, 40))}",
    "hydra/launcher=slurm_cpu", "hydra.launcher.cpus=1",
)  # fmt: skip


def launch(*words: str, folder: Path) -> tuple[float, str]:
    """Launch, and return seconds and what was printed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "ntklens.run", *words, *sys.argv[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - started, done.stdout


def count_jobs(output: str) -> dict[str, int]:
    counts = [int(count) for count in re.findall(r"^job .*: (\d+) tasks", output, re.MULTILINE)]
    return {"arrays": len(counts), "tasks": sum(counts)}


def main() -> None:
    if not shutil.which("sbatch"):
        sys.exit(print("no SLURM here: nothing measured"))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        seconds, output = launch("-m", *TOY, "name=toys", folder=folder)
        submitted = {"seconds_to_submit": seconds, **count_jobs(output)}
        started = time.perf_counter()
        launch("-m", *TOY, "name=toys", "launch.wait=true", folder=folder)
        whole = seconds + time.perf_counter() - started
        count = len(list((folder / "multirun").rglob("trajectory.nc")))
        assert count == 1000 * SEEDS, count
        again, output = launch("-m", *TOY, "name=toys", folder=folder)
        assert count_jobs(output) == {"arrays": 0, "tasks": 0}
        many_seconds, output = launch("-m", *TOY, "name=many", "hydra.launcher.task_minutes=0.01", folder=folder)
        many = {"seconds_to_submit": many_seconds, **count_jobs(output)}
        subprocess.run([sys.executable, "-m", "ntklens.run", "task=cancel", "name=many"], cwd=folder, check=True)
        time.sleep(60)  # jobs that end still write into the folder
    answers = {
        "thousand_configurations": submitted,
        "trajectories": {"seconds": whole, "seconds_per_trajectory": whole / count},
        "second_launch_seconds": again,
        "more_than_an_array": many,
    }
    Console().print(answers)
    write_results("slurm", answers)


if __name__ == "__main__":
    main()
