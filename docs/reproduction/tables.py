"""Collect what docs/reproduction.md shows, and write the tables of that page from it.

    python docs/reproduction/tables.py multirun   # copies of each sweep's report its CSV files and the figures shown
    python docs/reproduction/tables.py            # the tables alone, from what is committed

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

import csv
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import linregress, t

HERE = Path(__file__).parent
PAGE = HERE.with_suffix(".md")
WIDTH, DATA_SIZE = "model.width", "dataset.train_size"
DATA = "claims.csv", "fits.csv", "observables.csv"
LEVELS = "1", "0.3", "0.1"
SCALE = 10.0  # numbers from here on are widths, not exponents
ARMS = "paper", "resolved"
PARTS = "agrees", "does not agree", "does not decide"
SHORT = {
    "protocol.arm=": "",
    "training.loss=cross_entropy": "cross-entropy",
    "training.loss=mse": "squared error",
    "training.batch_size=null": "whole batch",
    "training.batch_size=": "batch ",
    "optimizer._target_=optax.adam": "Adam",
    "optimizer._target_=optax.sgd": "GD",
    "model.parameterization=": "",
    "dataset.input_dim=": "d' = ",
    "model.depth=": "depth ",
}
LAWS = {
    "minimum_loss": "L_min",
    "initial_trace": "Tr Θ_0",
    "trace_change": "ΔTr",
    "trace_ratio": "β",
    "adaptation_rate": "−χ",
    "minimum_effective_rank": "Γ_min",
}


def read(sweep: str, name: str) -> list[dict[str, str]]:
    """Return the rows of a committed CSV file."""
    with (HERE / sweep / name).open(newline="") as file:
        return list(csv.DictReader(file))


def shorten(group: str) -> str:
    """Return a group of runs in the words of the tables."""
    for long, short in SHORT.items():
        group = group.replace(long, short)
    return group


def number(value: str | float) -> str:
    """Return a number with two digits behind the point, a scale with none, and a true minus sign."""
    rounded = f"{float(value):,.0f}" if abs(float(value)) >= SCALE else f"{float(value):.2f}"
    return rounded.replace("-0.00", "0.00").replace("-", "−").replace("inf", "∞")


def interval(row: dict[str, str], value: str = "exponent", low: str = "low", high: str = "high") -> str:
    """Return `α [low, high]`, or a dash where nothing was fitted."""
    ends = f" [{number(row[low])}, {number(row[high])}]" if row[low] else ""
    return number(row[value]) + ends if row[value] else "–"


def exponents(sweeps: str | dict[str, str], names: dict[str, str], axis: str, among: str = "") -> Iterator[str]:
    """Yield a table of exponents of power laws with 95 % intervals: a row for each group of runs.

    Args:
      sweeps: one, or several by what their rows are called.
      names: observable → its column.
      axis: along which.
      among: what a group's name holds.
    """
    yield "| | " + " | ".join(names.values()) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for title, sweep in (sweeps if isinstance(sweeps, dict) else {"": sweeps}).items():
        fits = [row for row in read(sweep, "fits.csv") if row["form"] == "power" and row["axis"] == axis]
        for group in dict.fromkeys(row["group"] for row in fits if among in row["group"]):
            cells = {row["observable"]: interval(row) for row in fits if row["group"] == group}
            label = ", ".join(filter(None, (title, shorten(group))))
            yield f"| {label} | " + " | ".join(cells.get(name, "–") for name in names) + " |"


def joint(sweep: str) -> Iterator[str]:
    """Yield a table of the joint laws of L_min over width and data: both forms in both arms."""
    rows = [row for row in read(sweep, "fits.csv") if row["form"] in ("additive", "combined")]
    parameters = ("a", "b", "E")
    yield "| | law | " + " | ".join(parameters) + " | r.m.s. error | AICc |"
    yield "|---" * (len(parameters) + 4) + "|"
    for row in rows:
        cells = [interval(row, name, f"{name}_low", f"{name}_high") for name in parameters]
        aicc = "–" if math.isinf(float(row["aicc"])) else f"{float(row['aicc']):.0f}".replace("-", "−")
        law = row["note"] if row["preferred"] == "false" else f"**{row['note']}**"
        yield f"| {shorten(row['group'])} | {law} | {' | '.join(cells)} | {100 * float(row['misfit']):.0f} % | {aicc} |"


def scale(row: dict[str, str]) -> str:
    """Return a crossover's scale with its interval, or a dash where the data bound it from neither side."""
    if float(row["scale_low"]) <= 0.0 and math.isinf(float(row["scale_high"])):
        return "–"
    value, low, high = (f"{float(row[name]):,.0f}".replace("inf", "∞") for name in ("scale", "scale_low", "scale_high"))
    return f"{value} [{low}, {high}]"


def part(reason: str) -> str:
    """Return what a claim's reason says of the part of the range that was swept."""
    found = re.search(f"that part ({'|'.join(PARTS)})", reason)
    return found[1] if found else ""


def judge(row: dict[str, str]) -> str:
    """Return a statement's exponent and verdict."""
    of_part = part(row["reason"])
    return f"{interval(row, 'value')}, {row['verdict']}" + f" (that part {of_part})" * bool(of_part)


def claims(sweep: str, axis: str) -> Iterator[str]:
    """Yield a table of the paper's statements along an axis: both arms, and the settings of the sensitivity grid."""
    rows = [row for row in read(sweep, "claims.csv") if row["axis"] == axis]
    grid = [row for row in read("sensitivity", "claims.csv") if row["axis"] == axis and row["group"]]
    heads = ["statement", "paper arm", "resolved arm"] + ["settings of the grid: agree, not, undecided"] * bool(grid)
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for claim in dict.fromkeys(row["claim"] for row in rows):
        of_claim = [row for row in rows if row["claim"] == claim]
        cells = ["; ".join(map(judge, (row for row in of_claim if row["protocol"] == arm))) for arm in ARMS]
        if grid:
            parts = [part(row["reason"]) for row in grid if row["claim"] == claim]
            cells.append(", ".join(str(parts.count(kind)) for kind in PARTS))
        yield f"| {claim} | " + " | ".join(cells) + " |"


def transitions(sweep: str, axis: str) -> Iterator[str]:
    """Yield a table of scales: of the affine law of Tr Θ_0, of the crossovers of β and Γ_min, with 95 % intervals."""
    fits = [row for row in read(sweep, "fits.csv") if row["axis"] == axis]
    kinds = {
        "a/b of Tr Θ_0 = a + b m": ("initial_trace", "affine"),
        "x* of β (plateau → power)": ("trace_ratio", "plateau_power"),
        "x* of Γ_min (power → plateau)": ("minimum_effective_rank", "power_plateau"),
    }
    yield "| | " + " | ".join(kinds) + " |"
    yield "|---" * (len(kinds) + 1) + "|"
    for group in dict.fromkeys(row["group"] for row in fits):
        cells = []
        for observable, form in kinds.values():
            row = next((r for r in fits if (r["observable"], r["form"], r["group"]) == (observable, form, group)), None)
            cells.append(scale(row) if row and row["scale"] else "–")
        yield f"| {shorten(group)} | " + " | ".join(cells) + " |"


def slope(rows: list[dict[str, str]], value: Callable[[dict[str, str]], float]) -> tuple[list[float], str]:
    """Return the mean over seeds at each width, and the slope of its logarithm.

    By ordinary least squares, with Student's interval.
    """
    widths = sorted({float(row[WIDTH]) for row in rows})
    means = [float(np.nanmean([value(row) for row in rows if float(row[WIDTH]) == width])) for width in widths]
    line = linregress(np.log(widths), np.log(means))
    half = t.ppf(0.975, len(widths) - 2) * line.stderr
    return means, f"{number(line.slope)} [{number(line.slope - half)}, {number(line.slope + half)}]"


def get(row: dict[str, str], name: str) -> float:
    """Return a number of observables.csv; NaN where it has none."""
    return float(row[name] or "nan")


def matched(sweep: str) -> Iterator[str]:
    """Yield a table of the exponents of ΔTr in width where the train loss first crosses 1, 0.3 and 0.1."""
    rows = read(sweep, "observables.csv")
    yield "| | " + " | ".join(f"L_train = {level}" for level in LEVELS) + " |"
    yield "|---" * (len(LEVELS) + 1) + "|"
    for arm in ARMS:
        own = [row for row in rows if row["protocol.arm"] == arm]
        changes = [
            lambda row, end=f"crossing_trace_{level}": get(row, end) - get(row, "initial_trace") for level in LEVELS
        ]
        yield f"| {arm} | " + " | ".join(slope(own, change)[1] for change in changes) + " |"


def turned(sweep: str) -> Iterator[str]:
    """Yield a table of how far the kernel turns and grows, by width, with exponents."""
    rows = read(sweep, "observables.csv")
    kinds: dict[str, Callable[[dict[str, str]], float]] = {
        "1 − cos(Θ, Θ_0) where L_train = 1": lambda row: get(row, "crossing_kernel_distance_1"),
        "1 − cos(Θ, Θ_0) at the minimum": lambda row: get(row, "minimum_kernel_distance"),
        "β": lambda row: get(row, "trace_ratio"),
        "Tr Θ from L_train = 1 to the minimum, ratio": lambda row: (
            get(row, "minimum_trace") / get(row, "crossing_trace_1")
        ),
        "the same of Adam's preconditioned Θ": lambda row: (
            get(row, "minimum_trace_preconditioned") / get(row, "crossing_trace_preconditioned_1")
        ),
    }
    widths = sorted({int(row[WIDTH]) for row in rows})
    yield "| | " + " | ".join(f"{width}" for width in widths) + " | exponent |"
    yield "|---" * (len(widths) + 2) + "|"
    for name, value in kinds.items():
        means, exponent = slope(rows, value)
        yield (
            f"| {name} | "
            + " | ".join(f"{mean:.2g}" if mean < 1 else f"{mean:.1f}" for mean in means)
            + f" | {exponent} |"
        )


def divided() -> Iterator[str]:
    """Yield a table of what a third of the resolved step changes, of three paired seeds, at three widths."""
    rows = read("step_divisor", "steps.csv")
    runs = list(dict.fromkeys(row["run"] for row in rows))
    yield "| step/3, change in % | " + " | ".join(f"width {re.search('w([0-9]+)', run)[1]}" for run in runs) + " |"
    yield "|---" * (len(runs) + 1) + "|"
    for observable, symbol in {**LAWS, "trace_change_equal_loss": "ΔTr at equal train loss"}.items():
        cells = {row["run"]: row for row in rows if row["observable"] == observable}
        if cells:
            texts = (f"{100 * float(cells[run]['mean']):.1f} ± {100 * float(cells[run]['error']):.1f}" for run in runs)
            yield f"| {symbol} | " + " | ".join(texts).replace("-", "−") + " |"


WEIGHTED = {"trace_ratio_weighted": "weighted β", "minimum_effective_rank_weighted": "weighted Γ_min"}
PARTS_OF = ("hidden_0", "hidden_1", "readout")
BETAS = {f"trace_ratio_layer.{layer}": f"β of {layer}" for layer in PARTS_OF}
LAYERS = {
    f"{name}_layer.{layer}": f"{symbol} of {layer}"
    for name, symbol in {"trace_ratio": "β", "initial_trace": "Tr Θ_0", "trace_change": "ΔTr"}.items()
    for layer in PARTS_OF
}
NETWORKS = {
    "CNN": "cnn_width_small",
    "residual network": "resnet_width_small",
    "vision transformer": "transformer_width_small",
    "causal transformer": "language_width_small",
}
TABLES: dict[str, Callable[[], Iterable[str]]] = {
    "claims width": lambda: claims("mnist_width", WIDTH),
    "claims data": lambda: claims("mnist_data", DATA_SIZE),
    "transitions": lambda: transitions("mnist_width", WIDTH),
    "matched": lambda: matched("mnist_width"),
    "divided": divided,
    "turned": lambda: turned("kernel_change"),
    "sensitivity": lambda: exponents("sensitivity", LAWS, WIDTH),
    "layers": lambda: exponents("mnist_width", LAYERS, WIDTH),
    "layers of parameterisations": lambda: exponents("parameterization_small", BETAS, WIDTH, "resolved"),
    "input_dim": lambda: [*exponents("input_dim_small", LAWS, WIDTH), "", *transitions("input_dim_small", WIDTH)],
    "parameterization": lambda: exponents("parameterization_small", LAWS | WEIGHTED, WIDTH),
    "depth": lambda: [
        *exponents("cifar10_transition_small", LAWS, WIDTH),
        "",
        *transitions("cifar10_transition_small", WIDTH),
    ],
    "draws": lambda: exponents("draws_small", LAWS, WIDTH),
    "networks": lambda: exponents(NETWORKS, LAWS, WIDTH),
    "dense depth": lambda: [*exponents("depth_small", LAWS, WIDTH), "", *transitions("depth_small", WIDTH)],
    "batch": lambda: exponents("batch_small", LAWS, WIDTH),
    "joint": lambda: joint("joint_small"),
    "cifar10 width": lambda: [
        *exponents("cifar10_width_small", LAWS, WIDTH),
        "",
        *transitions("cifar10_width_small", WIDTH),
    ],
    "depth 3": lambda: [*exponents("mnist_width_depth3", LAWS, WIDTH), "", *transitions("mnist_width_depth3", WIDTH)],
    "fashion": lambda: [
        *exponents("fashion_mnist_width_small", LAWS, WIDTH),
        "",
        *transitions("fashion_mnist_width_small", WIDTH),
    ],
}
FIGURES = {
    "mnist_width": (
        "laws-model.width",
        "ratio-split-model.width",
        "layer-order-model.width-protocol.armresolved",
        "trace-law-model.width",
    ),
    "mnist_data": ("laws-dataset.train_size",),
    "sensitivity": ("sensitivity-model.width",),
    "draws_small": ("sensitivity-model.width",),
    "input_dim_small": ("ratio-split-model.width",),
    "parameterization_small": ("sensitivity-model.width",),
    "cifar10_transition_small": ("trace-law-model.width",),
    "cnn_width_small": ("laws-model.width",),
    "kernel_change": ("metrics-model.width",),
    "mnist_width_depth3": ("trace-law-model.width",),
    "fashion_mnist_width_small": ("laws-model.width", "trace-law-model.width"),
    "depth_small": ("trace-law-model.width",),
    "batch_small": (),
    "joint_small": ("surfaces",),
    "resnet_width_small": ("laws-model.width",),
    "transformer_width_small": ("laws-model.width",),
    "language_width_small": ("laws-model.width",),
    "cifar10_width_small": ("laws-model.width",),
}


def collect(results: Path) -> None:
    """Copy what the page shows from the reports of the sweeps, multirun/<name>/report."""
    for sweep, stems in FIGURES.items():
        report = results / sweep / "report"
        (HERE / sweep).mkdir(exist_ok=True)
        for name in (*DATA, *(f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "csv"))):
            shutil.copy(report / name, HERE / sweep)


def fill(page: str) -> str:
    """Return the page with its tables written anew."""

    def table(found: re.Match[str]) -> str:
        return "\n".join((found[1], "", *TABLES[found[2]](), "", "<!-- end -->"))

    return re.sub(r"(<!-- table ([\w ]+) -->).*?<!-- end -->", table, page, flags=re.DOTALL)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        collect(Path(argument))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
