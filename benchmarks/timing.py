"""What the benchmarks share: contestants that take turns, and results written with the machine they are of."""

import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path

import jax
import numpy as np
import psutil

# What Weights & Biases costs is measured by tracking.py alone; nobody's account is filled by the others.
os.environ["WANDB_MODE"] = "disabled"

SHORT = 0.5  # seconds up to which a contestant is called several times a turn
SLOW = 5.0  # seconds from which a contestant runs only once more after its warm-up


def time_in_turns(contestants, repeats):
    """{name: median seconds} of functions called in turns, each after one call to warm up."""
    seconds = {name: [] for name in contestants}
    first = {name: time_once(function) for name, function in contestants.items()}
    for repeat in range(repeats):
        for name, function in contestants.items():
            if repeat == 0 or first[name] < SLOW:
                # A short one is called several times a turn: the first call still pays for what the one before it left.
                calls = 5 if first[name] < SHORT else 1
                seconds[name] += [time_once(function) for _ in range(calls)]
    return {name: float(np.median(times)) for name, times in seconds.items()}


def time_once(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def describe_environment():
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def write_results(name, answers):
    """Write benchmarks/results/<name>.json: the command, the machine and the answers."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    results = {"command": command, "environment": describe_environment(), **answers}
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {path}")
