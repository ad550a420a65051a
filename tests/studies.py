"""Studies for tests of the report: synthetic trajectories, and simple fits of what a law would be."""

import json
import math
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import xarray as xr

from ntklens.analysis.claims import Claim
from ntklens.analysis.diagnostics import Diagnosis
from ntklens.analysis.observables import measure_observables
from ntklens.analysis.powerlaw import Interval, Law
from ntklens.analysis.study import Group, Study
from ntklens.analysis.transition import Transition

LAYERS = ("hidden_0", "hidden_1", "readout")
NOTHING = Interval(math.nan, math.nan, math.nan)
FITTED = (
    "minimum_loss", "initial_trace", "trace_change", "trace_ratio", "adaptation_rate", "initial_effective_rank",
    "minimum_effective_rank",
)  # fmt: skip


@dataclass(frozen=True)
class LineFit:
    """A straight line, in logarithms for a power law: what the report reads of a Fit, and no more."""

    form: str
    parameters: dict
    x: np.ndarray
    mean: np.ndarray
    sem: np.ndarray
    count: np.ndarray
    sign: int
    line: np.ndarray
    misfit: float = 0.02
    r2: float = 0.98
    log_likelihood: float = 12.0
    aicc: float = -18.0
    holdout: float = 0.03
    without_top: Interval = field(default=NOTHING)
    without_bottom: Interval = field(default=NOTHING)
    bootstrap: Interval = field(default=NOTHING)

    def predict(self, x):
        if self.form == "affine":
            return np.polyval(self.line, x)
        return np.exp(np.polyval(self.line, np.log(x)))

    def predict_band(self, x):
        y = self.predict(x)
        return y * 0.95, y * 1.05


def make_fit(form, x, mean, sem, count, sign):
    if form == "affine":
        line = np.polyfit(x, mean, 1)
        slope, intercept = line
        values = {"intercept": intercept, "slope": slope, "scale": intercept / slope}
    else:
        line = np.polyfit(np.log(x), np.log(mean), 1)
        values = {"amplitude": math.exp(line[1]), "exponent": line[0]}
    parameters = {n: Interval(float(v), float(v - 0.05 * abs(v)), float(v + 0.05 * abs(v))) for n, v in values.items()}
    aicc = {"power": -18.0, "affine": -12.0}[form]
    exponent = parameters.get("exponent", NOTHING)
    return LineFit(form, parameters, x, mean, sem, count, sign, line, aicc=aicc, bootstrap=exponent)


def make_law(study_data, observables, name, group):
    done = study_data.state.values.astype(str) == "done"
    rows = [list(study_data.run.values).index(run) for run in group.runs]
    values = np.where(done, observables[name].values, np.nan)[rows]
    x = np.unique(group.x)
    together = [values[group.x == place].ravel() for place in x]
    together = [v[np.isfinite(v)] for v in together]
    kept = [n for n, v in enumerate(together) if len(v)]
    x, together = x[kept], [together[n] for n in kept]
    mean = np.array([v.mean() for v in together])
    sem = np.array([v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in together])
    sign = -1 if len(mean) and (mean < 0).all() else 1
    if len(x) < 4 or not (sign * mean > 0).all():
        reason = f"needs 4 points along the axis, there are {len(x)}" if len(x) < 4 else "not of one sign"
        return Law(name, group.axis, group.label, {}, None, {"power": reason, "affine": reason}, f"no fit: {reason}")
    count = np.array([len(v) for v in together])
    fits = {form: make_fit(form, x, sign * mean, sem, count, sign) for form in ("power", "affine")}
    refusals = {"crossover": f"needs 6 points along the axis, there are {len(x)}"}
    alpha = fits["power"].parameters["exponent"]
    finding = f"grows as a power law, α = {alpha.value:.3f} [{alpha.low:.3f}, {alpha.high:.3f}]"
    return Law(name, group.axis, group.label, fits, "power", refusals, finding)


def find_groups(data):
    ignored = {"run", "config", "key", "sweep"}
    swept = [str(n) for n, c in data.coords.items() if c.dims == ("run",) and str(n) not in ignored]
    groups = []
    for axis in swept:
        if data[axis].dtype.kind not in "iuf":
            continue
        rest = [name for name in swept if name != axis]
        labels = [",".join(f"{n}={data[n].values[row]}" for n in rest) for row in range(data.sizes["run"])]
        for label in dict.fromkeys(labels):
            rows = [row for row, other in enumerate(labels) if other == label]
            rows.sort(key=lambda row: data[axis].values[row])
            if len(rows) > 1 or len(swept) == 1:
                runs = [str(data.run.values[row]) for row in rows]
                groups.append(Group(axis, label, runs, data[axis].values[rows].astype(float)))
    return groups


def study_of_data(data, names=("sweep",), states=None, **parts):
    observables = measure_observables(data)
    groups = find_groups(data)
    laws = [make_law(data, observables, name, group) for group in groups for name in FITTED]
    claims = [
        Claim("L_min falls with width as a power law, exponent ≈ 0.5", "model.width", "", "paper",
              Interval(-0.02, -0.05, 0.01), "contradicted", "the interval of −α lies outside 0.4 … 0.6"),
        Claim("Tr Θ_0 grows ∝ m", "model.width", "", "paper", Interval(0.95, 0.92, 0.98), "supported",
              "the interval lies inside 0.9 … 1.1"),
        Claim("Γ(Θ_min) grows, then saturates", "model.width", "", "paper", NOTHING, "not testable",
              "type: python -m ntklens.run -m scaling=width model.width=16,32,64,128,256,512,1024"),
    ]  # fmt: skip
    counted = {
        str(s): int(n) for s, n in zip(*np.unique(data.state.values.astype(str), return_counts=True), strict=True)
    }
    content = {
        "names": list(names), "data": data, "observables": observables, "groups": groups, "laws": laws,
        "transitions": [Transition("trace_ratio", "model.width", "", Interval(310.0, 180.0, 520.0), True,
                                "plateau → power", 0.31, "β leaves its plateau near m = 310 [180, 520]; no break.")],
        "surfaces": [],
        "diagnoses": [
            Diagnosis("warning", "3 seeds per width: too few for the intervals of L_min.", "ensemble=10"),
            Diagnosis("note", "χ has R² below 0.95 in 4 of 12 runs: no single χ exists.", "protocol=resolved"),
        ],
        "claims": claims,
        "states": counted if states is None else states,
        "summary": ["L_min hardly falls with width: α = −0.02 [−0.05, 0.01].", "Tr Θ_0 is affine in the width."],
    }  # fmt: skip
    return Study(**(content | parts))


def make_data(axes=None, seeds=3, records=30, modes=24, diverged=(), missing=(), rank=True):
    """Trajectories over a grid of swept parameters, laws of width built in.

    Args:
      axes: override → values; none: a single run.
      seeds, records, modes: sizes.
      diverged, missing: (run, seed) pairs.
      rank: whether Γ and spectra were measured.
    """
    axes = {} if axes is None else axes
    rng = np.random.default_rng(0)
    grid = list(product(*axes.values()))
    runs = [f"mnist-run-{'-'.join(map(str, values)) or 'one'}" for values in grid]
    width = np.array([float(dict(zip(axes, v, strict=True)).get("model.width", 64)) for v in grid])[:, None, None]
    shape = (len(runs), seeds, records)
    step = np.concatenate([[0], np.geomspace(1, 300, records - 1)])
    grown = 1 - np.exp(-step / 40)
    noise = 1 + 0.05 * rng.standard_normal((len(runs), seeds, 1))
    trace = (2e4 + 60 * width) * noise * (1 + 400 / (width + 100) * grown)
    train = 2.3 * np.exp(-3 * grown) * noise
    test = 2.3 - (1.2 + 0.03 * np.log(width)) * grown * noise + 0.3 * (step / 300) ** 2
    ranks = np.where(np.arange(records) % 4 == 0, 60 * width**0.2 * (1 - 0.5 * grown) * noise, np.nan)
    lowest = test.argmin(axis=2)

    def at_minimum(values):
        return np.take_along_axis(np.broadcast_to(values, shape), lowest[:, :, None], axis=2)[:, :, 0]

    spectrum = np.arange(1, modes + 1) ** -1.5
    along = ("run", "seed", "record")
    variables = {
        name: (along, np.array(np.broadcast_to(values, shape)))
        for name, values in (
            ("step", step), ("epoch", step), ("train_loss", train), ("test_loss", test), ("selection_loss", test),
            ("train_accuracy", grown), ("test_accuracy", grown), ("logit_norm", 1 + grown), ("trace", trace),
        )
    }  # fmt: skip
    layer = np.array([0.2, 0.3, 0.5])
    variables["trace_layer"] = ((*along, "layer"), trace[..., None] * layer)
    variables["weight_change"] = ((*along, "layer"), np.broadcast_to(grown, shape)[..., None] * layer)
    variables |= {f"minimum_{name}": (("run", "seed"), at_minimum(v)) for name, (dims, v) in variables.items()
                  if dims == along}  # fmt: skip
    for name in ("trace_layer", "weight_change"):
        whole = variables[name][1]
        variables[f"minimum_{name}"] = (("run", "seed", "layer"), np.take_along_axis(
            whole, lowest[:, :, None, None], axis=2)[:, :, 0])  # fmt: skip
    variables["effective_rank"] = (along, np.broadcast_to(ranks, shape) * (1 if rank else np.nan))
    last = 60 * width[..., 0] ** 0.2 * 0.6 * noise[..., 0]
    variables["minimum_effective_rank"] = (("run", "seed"), last * (1 if rank else np.nan))
    for name in ("effective_rank", "minimum_effective_rank"):
        dims, values = variables[name]
        variables[f"{name}_layer"] = ((*dims, "layer"), values[..., None] * (0.5 + layer))
    empty = np.full((*shape, modes), np.nan)
    if rank:
        empty[:, :, 0] = trace[:, :, :1] * spectrum
    variables["eigenvalues"] = ((*along, "mode"), empty)
    variables["minimum_eigenvalues"] = (("run", "seed", "mode"), empty[:, :, 0] * 3)
    state = np.full(shape[:2], "done", "<U10")
    for run, seed in diverged:
        state[run, seed] = "diverged"
        for name, (dims, values) in variables.items():
            if dims[:3] == along and name not in ("step", "epoch"):
                values[run, seed, records // 2 :] = np.nan
    for run, seed in missing:
        state[run, seed] = "missing"
        for _, values in variables.values():
            values[run, seed] = np.nan
    configs = [json.dumps({"model": {"depth": 2}, "swept": dict(zip(axes, map(str, v), strict=True))}) for v in grid]
    coords = {
        "run": runs, "seed": np.arange(seeds), "layer": list(LAYERS), "level": [1.0, 0.3, 0.1],
        "state": (("run", "seed"), state), "config": ("run", np.array(configs, object)),
        "key": ("run", [f"{n:08x}" for n in range(len(runs))]),
    }  # fmt: skip
    coords |= {name: ("run", np.array([v[n] for v in grid])) for n, name in enumerate(axes)}
    provenance = {
        "git_commit": ["d3918d0ad55f"], "device": ["cpu: cpu"], "packages": [{"jax": "0.11.2", "numpy": "2.5.5"}],
        "data": [{"name": "mnist", "files": {"train-images-idx3-ubyte.gz": "440fcabf73cc"}}], "precision": ["float32"],
    }  # fmt: skip
    return xr.Dataset(variables, coords, {"provenance": json.dumps(provenance), "unreadable": "[]"})


def make_study(axes=None, **options):
    parts = {
        name: options.pop(name) for name in ("names", "states", "summary", "claims", "diagnoses") if name in options
    }
    return study_of_data(
        make_data({"model.width": [16, 32, 64, 128, 256]} if axes is None else axes, **options), **parts
    )


def study_of(folder):
    """A study of real trajectories, for looking at."""
    import h5py

    import ntklens

    data = ntklens.load(folder)
    if "config" in data.coords:
        return study_of_data(data, names=(folder.name,))
    attributes = []
    for run in data.run.values:
        file = min(folder.glob(f"{run}/seed=*/trajectory.nc"))
        with h5py.File(file) as stream:
            attributes.append({k: v.decode() if isinstance(v, bytes) else v for k, v in stream.attrs.items()})
    found = {"config": ("run", np.array([a["config"] for a in attributes], object))}
    first = attributes[0]
    provenance = {n: [str(first[n])] for n in ("git_commit", "device", "python", "host", "data_checksum")}
    provenance |= {n: [json.loads(first[n])] for n in ("packages", "data")}
    data = data.assign_coords(found)
    data.attrs["provenance"] = json.dumps(provenance)
    return study_of_data(data, names=(folder.name,))
