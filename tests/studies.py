"""Studies for tests of the report: synthetic trajectories over any axes, complete or not."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr

from ntklens.analysis.study import analyse

LAYERS = ("hidden_0", "hidden_1", "readout")


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


def make_study(axes=None, names=("sweep",), states=None, summary=None, **options):
    data = make_data({"model.width": [16, 32, 64, 128, 256]} if axes is None else axes, **options)
    study = analyse(data, names, states)
    return study if summary is None else replace(study, summary=summary)
