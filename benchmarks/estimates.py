"""Are the plan's estimates of time worth their line?

Runs a sweep over widths, training sizes and epochs, and compares what each configuration took with what was estimated
before anything had been measured.

    python benchmarks/estimates.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import write_results

WORDS = ("-m", "model.width=16,64,256", "dataset.train_size=100,800", "training.epochs=500,2000", "ensemble=4")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = (*WORDS, f"paths.results={folder}", "launch.workers=1")
        command = [sys.executable, "-m", "ntklens.run", *words]
        planned = json.loads(
            subprocess.run(
                [*command, "task=plan", "task.format=json"], check=True, capture_output=True, text=True
            ).stdout
        )
        subprocess.run(command, check=True, capture_output=True)
        rows = []
        estimates = dict.fromkeys(range(len(planned["configurations"])), 0.0)
        for task in planned["tasks"]:
            for number, _, seconds in task["slices"]:
                estimates[number] += seconds
        for number, configuration in enumerate(planned["configurations"]):
            run = Path(folder) / planned["name"] / configuration["run"]
            # Seeds of one pack have its seconds in common.
            packs = {json.loads(path.read_text())["seconds"] for path in run.glob("seed=*/status.json")}
            seconds = sum(packs)
            ratio = seconds / estimates[number]
            rows.append({**configuration["axes"], "estimated": estimates[number], "seconds": seconds, "ratio": ratio})
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    logs = np.log([row["ratio"] for row in rows])
    result = {
        "rows": rows,
        "median_ratio": float(np.exp(np.median(logs))),
        "largest": float(np.exp(np.abs(logs).max())),
    }
    Console().print(table, f"median ratio {result['median_ratio']:.2f}, within a factor {result['largest']:.2f}")
    write_results("estimates", result)


if __name__ == "__main__":
    main()
