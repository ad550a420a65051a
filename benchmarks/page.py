"""docs/benchmarks.md, made of the results in benchmarks/results/.

    python benchmarks/page.py      # writes it; the last step of make bench

Each section names its question, its command, the day and the machine, and shows the numbers of its JSON.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

Speed and exactness, as the scripts in `benchmarks/` measured them; this page is made of their results by
`python benchmarks/page.py`. Speeds are compared within one run, in turns; other runs of one machine differ by some ten
percent, more beside other load. `NTKLENS_DATA=… python benchmarks/<script>.py` measures again.
"""


def show(value: float, digits: int = 3) -> str:
    """Return a number to a few digits."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        return f"{float(text):.0f}" if "e" in text else text
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def table(heads: list[str], rows: list[list]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)


def mib(count: float) -> str:
    """Return bytes in MiB."""
    return f"{count / 2**20:.0f} MiB"


def span(values) -> str:
    """Return the least and the largest of some numbers."""
    values = list(values)
    low, high = show(min(values), 2), show(max(values), 2)
    return low if low == high else f"{low} … {high}"


def kernel(found):
    rows = [
        [
            row["width"], row["structured_seconds"] * 1e3, row["traces_seconds"] * 1e3,
            min(row["neural_tangents_seconds"].values()) * 1e3 if row["neural_tangents_seconds"] else "–",
            row.get("speedup") or "–", row["share_of_machine"],
        ]
        for row in found["widths"]
    ]  # fmt: skip
    heads = ["width", "Θ, ms", "traces, ms", "neural-tangents, faster mode, ms", "times faster", "share of the rate"]
    return (
        "N = 128, C = 10, depth 2, float32. The rate is the machine's own, of matrix products of like shapes.\n\n"
        + table(heads, rows)
    )


def kernel_networks(found):
    rows = [
        [
            row["network"], row["seconds"]["structured"] * 1e3, row["speedup"], row["traces_against_neural_tangents"],
            mib(row["temporary_bytes"]), mib(row["neural_tangents_temporary_bytes"]),
        ]
        for row in found["networks"]
    ]  # fmt: skip
    heads = ["network", "Θ, ms", "times faster", "traces: times faster", "memory", "of neural-tangents"]
    return "N = 32 images of 28 × 28, C = 10, against neural-tangents' faster mode for these.\n\n" + table(heads, rows)


def updates(found):
    rows = [
        [
            row["network"], row["width"], " × ".join(map(str, row["image"])), row["samples"],
            row["seconds"]["products"] * 1e3, row["seconds"]["library"] * 1e3, row["faster_by"],
        ]
        for row in found["rows"]
    ]  # fmt: skip
    heads = ["network", "channels", "image", "samples", "update, ms", "XLA's own gradients, ms", "times faster"]
    return table(heads, rows)


def training(found):
    rows = [[row["width"], row["throughput_over_best_loop"]] for row in found["rows"]]
    return table(["width", "throughput over that of the best loop by hand"], rows)


def packing(found):
    rows = [[row["width"], *row["seconds"].values(), row["apart_over_together"]] for row in found["rows"]]
    return table(["width", *(f"{name}, s" for name in found["rows"][0]["seconds"]), "times faster"], rows)


def measuring(found):
    rows = [[f"{name}, ms", seconds * 1e3] for name, seconds in found["rows"][0]["seconds"].items()]
    rows.append(["a record over its bare parts", found["rows"][0]["record_over_bare"]])
    return table(["width 512, 20 seeds", ""], rows)


def memory(found):
    return "\n".join(f"Width {row['width']}: {row['peak_MiB'] / 1024:.2f} GiB at the peak." for row in found["rows"])


def sweep(found):
    runs = found["trajectories"]
    rows = [
        ["to plan 1,000 configurations, s", found["plan_of_1000_configurations_seconds"]],
        ["a trajectory of a toy sweep of 1,000 configurations × 20 seeds, ms", runs["seconds_per_trajectory"] * 1e3],
        ["times faster than one process per seed", runs["times_faster"]],
        ["the same line again, s", runs["second_launch_seconds"]],
        ["`task=status`, s", found["status_of_20000_units_seconds"]],
        ["start to first update, compiled programs kept, s", found["first_step_seconds"]["with_cache"]],
        ["start to first update, nothing kept, s", found["first_step_seconds"]["without_cache"]],
    ]
    return table(["", ""], rows)


def slurm(found):
    thousand, more = found["thousand_configurations"], found["more_than_an_array"]
    rows = [
        ["to submit 1,000 configurations, s", thousand["seconds_to_submit"]],
        ["arrays, tasks", f"{thousand['arrays']}, {thousand['tasks']}"],
        ["a trajectory, two tasks at a time, ms", found["trajectories"]["seconds_per_trajectory"] * 1e3],
        ["to submit more than an array holds, s", more["seconds_to_submit"]],
        ["arrays, tasks", f"{more['arrays']}, {more['tasks']}"],
    ]
    return table(["", ""], rows)


def tracking(found):
    jobs = found["job_of_21_records_seconds"], found["job_of_87_records_seconds"]
    rows = [[name.replace("_", " "), *(job[name] for job in jobs)] for name in jobs[0]]
    return table(["tracking, a toy job of 20 seeds", "21 records, s", "87 records, s"], rows)


def load(found):
    rows = [
        [name, found[name]["seconds"], mib(found[name]["peak_bytes"])] for name in ("first", "second")
    ]  # fmt: skip
    return table([f"`ntklens.load` of {found['files']:,} trajectories", "s", "peak memory"], rows)


def report(found):
    rows = [
        [count, found[count]["seconds"], found[count]["processor_seconds"]["figures"], mib(found[count]["peak_bytes"])]
        for count in found
        if count.isdigit()
    ]
    return table(["trajectories", "`task=report`, s", "of which figures, processor s", "peak memory"], rows)


def estimates(found):
    ratios = [row["ratio"] for row in found["rows"]]
    return f"Measured over estimated time of {len(ratios)} runs, before anything was measured: {span(ratios)}."


def programs(found):
    rows = []
    for network in dict.fromkeys(row["network"] for row in found["programs"]):
        own = [row for row in found["programs"] if row["network"] == network]
        kinds = dict.fromkeys(row["program"] for row in own)
        memory = [span(r["bytes"] / r["xla_bytes"] for r in own if r["program"] == kind) for kind in kinds]
        rows.append([network, *memory, span(r["operations"] / r["xla_operations"] for r in own)])
    kinds = dict.fromkeys(row["program"] for row in found["programs"])
    return "Counted over XLA's own analysis of the compiled programs.\n\n" + table(
        ["network", *(f"memory: {kind}" for kind in kinds), "operations"], rows
    )


def coverage(found):
    shares = [100 * row[name] for row in found["coverage"] for name in ("exponent", "amplitude") if name in row]
    bootstrap = [100 * row["exponent"] for row in found["percentile_bootstrap"] if row["misfit"]]
    breaks = [100 * row["break"] for row in found["false"]]
    rows = [
        [f"95 % intervals cover the truth, in % of {found['repeats']} repeats", span(shares)],
        ["a percentile bootstrap over seeds does where points scatter by 3 %, in %", span(bootstrap)],
        [f"a break is found in smooth curves, in % of {found['repeats_of_breaks']} repeats", span(breaks)],
    ]
    return table([f"{len(found['coverage'])} cases: forms, seeds, intrinsic scatter, shared draws", ""], rows)


def exactness(found):
    kernels = found["kernels"]
    ranks = [row["deviation"] for row in found["effective_ranks"]]
    packings = found["packings"]["rows"]
    rows = [
        ["Θ against the float64 Jacobian, of the largest entry", max(row["against_jacobian"] for row in kernels)],
        ["Θ against neural-tangents", max(row["against_neural_tangents"] for row in kernels)],
        ["Γ in float32 against float64, trained networks", max(map(abs, ranks))],
        ["20 seeds together against each alone, to epoch 10", max(row["to_epoch_10"] for row in packings)],
        ["to epoch 100", max(row["to_epoch_100"] for row in packings)],
    ]
    return table(["largest deviation", ""], rows)


def trace_law(found):
    rows = [
        [row["depth"], row["width"], row["measured"], row["law"], f"{100 * row['deviation']:.1f} %"]
        for row in found["rows"]
    ]
    return table(["depth", "width", "Tr Θ_0 / (N C)", "law", "deviation"], rows)


def gpu(found):
    peers = found["parts"]["peers"]["rows"]
    rows = [
        [row["question"], row["kernel_seconds"] * 1e3, row["ntklens_seconds"] * 1e3, row["times_faster"]]
        for row in peers
        if "times_faster" in row
    ]
    heads = ["against", "its Θ, ms", "ntklens' Θ, ms", "times faster"]
    jobs = [[row["question"], row["wall_seconds"]] for row in found["parts"]["jobs"]["rows"]]
    return (
        f"Commit {found['commit']}. Below 1 in the last column ntklens is slower.\n\n"
        + table(heads, rows)
        + "\n\n"
        + table(["20 seeds on MNIST, 300 epochs, whole command", "s"], jobs)
    )


SECTIONS = (
    ("Kernels of perceptrons", "kernel", kernel),
    ("Kernels of other networks", "kernel_networks", kernel_networks),
    ("Exactness", "exactness", exactness),
    ("Tr Θ_0 against its law in the width", "trace_law", trace_law),
    ("Updates of convolutional networks", "updates", updates),
    ("Training against a compiled loop by hand", "main_job_training", training),
    ("Seeds in one process, or each in its own", "main_job_packing", packing),
    ("What a record takes", "main_job_measuring", measuring),
    ("Memory of 20 seeds on MNIST", "main_job_memory", memory),
    ("Sweeps", "sweep", sweep),
    ("SLURM", "slurm", slurm),
    ("Plans: time", "estimates", estimates),
    ("Plans: memory and operations", "estimates_programs", programs),
    ("Tracking", "tracking", tracking),
    ("Loading", "load", load),
    ("Reports", "report", report),
    ("Intervals", "coverage", coverage),
    ("On a GPU", "gpu", gpu),
)


def format_section(title: str, name: str, describe) -> str:
    """Return one section of the page."""
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    machine = found.get("environment", {})
    device = machine.get("device", "")
    if device in ("", "cpu"):
        device = f"{machine.get('cores', '?')} cores of {machine.get('cpu', 'a CPU')}"
    day = str(machine.get("date", ""))[:10]
    source = f"`{found['command']}`" + "".join(f", {word}" for word in (day, device, f"JAX {machine.get('jax', '?')}"))
    return f"## {title}\n\n{source}; `benchmarks/results/{name}.json`.\n\n{describe(found)}\n"


def format_page() -> str:
    """Return the whole page."""
    return HEAD + "\n" + "\n".join(format_section(*section) for section in SECTIONS)


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")
    print(f"written to {PAGE}")
