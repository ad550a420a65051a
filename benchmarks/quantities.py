"""What do the optional quantities cost a run, in processor time and memory, and what one that asks for none?

A run of MNIST (or, without NTKLENS_DATA, synthetic data of its shape), 100 training samples, depth 2, Adam, full batch:
without optional quantities, with each kind of them, and with all. Each is a process of its own, measured from start to
exit, its compiled programs kept from a run before; contestants take turns, numbers are medians.

    NTKLENS_DATA=… python benchmarks/quantities.py                     # about ten minutes on two cores
    NTKLENS_DATA=… python benchmarks/quantities.py --before PATH/src   # beside another version's, which asks for none
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import write_results

from ntklens.recording.quantities import QUANTITIES

TWIN, PROBES = "linearised_", ("effective_rank_probe", "trace_probe")  # of another model; of several probes
PLAIN = [name for name, one in QUANTITIES.items() if one.optional and not name.startswith(TWIN) and name not in PROBES]
KINDS = {
    "none": [],
    "kernels": [
        name for name in PLAIN if name.startswith(("kernel_", "alignment", "participation", "effective_rank_"))
    ],
    "kernels that train": [name for name in PLAIN if name.endswith(("_weighted", "_preconditioned"))],
    "units": ["flipped_units"],
    "sharpness": [name for name in PLAIN if "sharpness" in name],
    "all": PLAIN,
}
WORDS = (
    ("dataset=mnist", "dataset.train_size=100")
    if "NTKLENS_DATA" in os.environ
    else ("dataset=synthetic", "dataset.input_dim=784", "dataset.train_size=100")
)


def run_once(words: list[str], place: Path, source: str = "") -> tuple[float, float]:
    """Run ntklens; return its processor seconds and its peak memory in GiB.

    Args:
        words: of the command line.
        place: of results and compiled programs.
        source: the folder that holds another version's package; empty: this one.
    """
    env = os.environ | {"NTKLENS_CACHE": str(place / "cache"), "PYTHONUNBUFFERED": "1"}
    if source:
        env["PYTHONPATH"] = source
    command = [sys.executable, "-m", "ntklens.run", *WORDS, *words, "tracking=none", "replace=true"]
    with (place / "output").open("w") as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)]
        pid = os.posix_spawn(
            sys.executable, [*command, f"paths.results={place / 'multirun'}"], env, file_actions=actions
        )
        _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit((place / "output").read_text())
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", default="", help="src folder of another version, that is run without quantities")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="none is always among them")
    options = parser.parse_args()
    kinds = ["none", *(kind for kind in options.kinds if kind != "none")]
    shared = [f"model.width={options.width}", f"ensemble={options.seeds}", f"training.epochs={options.epochs}"]
    contestants = {kind: ([f"metrics=[{','.join(KINDS[kind])}]"] if KINDS[kind] else [], "") for kind in kinds}
    if options.before:
        contestants = {"before": ([], options.before), **contestants}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in contestants}
    with tempfile.TemporaryDirectory() as folder:
        places = {kind: Path(folder) / kind.replace(" ", "-") for kind in contestants}
        for place in places.values():
            place.mkdir()
        for turn in range(options.repeats + 1):  # the first compiles
            for kind, (words, source) in contestants.items():
                measured = run_once([*shared, *words], places[kind], source)
                found[kind] += [measured] if turn else []
    medians = {kind: tuple(float(one) for one in np.median(rows, axis=0)) for kind, rows in found.items()}
    reference = medians["none"]
    table = Table("quantities", "processor s", "over none", "range", "peak GiB", title=" ".join(shared))
    for kind, (seconds, memory) in medians.items():
        ends = [row[0] for row in found[kind]]
        table.add_row(kind, f"{seconds:.1f}", f"{seconds / reference[0]:.2f}", f"{min(ends):.1f} … {max(ends):.1f}",
                      f"{memory:.2f}")  # fmt: skip
    Console().print(table)
    runs = {
        kind: [{"seconds": seconds, "peak_gib": memory} for seconds, memory in rows] for kind, rows in found.items()
    }
    sys.argv = [
        "PATH/src" if word and word == options.before else word for word in sys.argv
    ]  # whose machine matters not
    write_results("quantities", {"words": [*WORDS, *shared], "kinds": KINDS, "runs": runs})


if __name__ == "__main__":
    main()
