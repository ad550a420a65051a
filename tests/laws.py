"""Made-up sweeps whose laws are known: what fits and reports are held against."""

import json

import numpy as np
import xarray as xr

from ntklens.recording.quantities import VARIABLES
from ntklens.store.trajectory import LEVELS

WIDTHS = 2.0 ** np.arange(4, 11)
CURVES = {
    "power": lambda x: 3 * x**-0.5,
    "affine": lambda x: 100 + 0.7 * x,
    "offset_power": lambda x: 0.3 + 6 * x**-0.6,
    "plateau_power": lambda x: 20 * (1 + x / 300) ** -0.8,
    "power_plateau": lambda x: 5 * (x / (1 + x / 300)) ** 0.3,
    "inverse_affine": lambda x: 1 / (1 + x / 400),
    "sharp": lambda x: (1 + (x / 150) ** 3) ** (-0.8 / 3),  # smooth, but it turns over within an octave
}
TRUTH = {
    "power": {"exponent": -0.5, "amplitude": 3.0},
    "affine": {"intercept": 100.0, "slope": 0.7, "scale": 100 / 0.7},
    "offset_power": {"exponent": -0.6, "offset": 0.3, "amplitude": 6.0},
    "plateau_power": {"exponent": -0.8, "scale": 300.0, "amplitude": 20.0},
    "power_plateau": {"exponent": 0.3, "scale": 300.0, "amplitude": 5.0},
}


def draw_quiet_values(curve: np.ndarray, rng: np.random.Generator, seeds: int, misfit: float) -> np.ndarray:
    """Values [K, seeds] whose scatter falls as x^−½ from 20 % at the first point, as that of Tr Θ_0 does."""
    spread = 0.2 * np.sqrt(WIDTHS[0] / WIDTHS)[:, None]
    values = curve[:, None] * (1 + spread * rng.standard_normal((len(curve), seeds)))
    return np.maximum(values, 0.01 * curve[:, None]) * np.exp(misfit * rng.standard_normal((len(curve), 1)))


def draw_values(
    curve: np.ndarray, rng: np.random.Generator, seeds: int, misfit: float = 0.0, draws: int = 1, noise: float = 0.05
) -> np.ndarray:
    """Values [K, draws, seeds] about a curve: misfit per point, a draw's effect at all points and at each, seeds.

    Seeds scatter three times as much at the first point as at the last, and the mean over them is the curve's.
    """
    points = len(curve)
    spread = noise * np.linspace(1.5, 0.5, points)[:, None, None]
    logs = misfit * rng.standard_normal((points, 1, 1)) + spread * rng.standard_normal((points, draws, seeds))
    logs -= spread**2 / 2
    if draws > 1:
        logs += 0.08 * rng.standard_normal((1, draws, 1)) + 0.02 * rng.standard_normal((points, draws, 1))
    return curve[:, None, None] * np.exp(logs)


def make_sweep(
    widths: np.ndarray = WIDTHS,
    seeds: int = 5,
    exponents: tuple[float, float] = (-0.3, 0.1),
    seed: int = 0,
    draws: int = 1,
    state: str = "done",
    **config: object,
) -> xr.Dataset:
    """A sweep over the width as `ntklens.load` returns it: L_min ∝ m^exponents[0], Γ ∝ m^exponents[1].

    Tr Θ_0 = 40 (300 + m), ΔTr = 10^5 at every width, a straight path of Tr Θ in ln L_train, minimum at record 30 of 40.
    """
    rng = np.random.default_rng(seed)
    records, minimum, layers, modes = 40, 30, ["hidden_0", "readout"], 12
    runs = [(width, draw) for width in widths for draw in range(draws)]
    shape = (len(runs), seeds)
    x = np.array([width for width, _ in runs])[:, None]
    scatter = {name: np.exp(0.03 * rng.standard_normal(shape)) for name in ("loss", "initial", "change", "rank")}
    loss = 3 * x ** exponents[0] * scatter["loss"]
    initial, change = 40 * (300 + x) * scatter["initial"], 1e5 * scatter["change"]
    rank = 20 * x ** exponents[1] * scatter["rank"]
    time = np.arange(records) / minimum
    step = np.round(200 * time)
    data: dict[str, tuple] = {}
    for prefix, dims in (("", ("record",)), ("minimum_", ()), ("crossing_", ("level",))):
        for name, (own, _) in VARIABLES.items():
            sizes = {"record": records, "level": len(LEVELS), "layer": len(layers), "mode": modes}
            full = ("run", "seed", *dims, *own)
            data[prefix + name] = (full, np.ones((*shape, *(sizes[dim] for dim in full[2:]))))

    def put(name: str, values: np.ndarray) -> None:
        data[name] = (data[name][0], np.broadcast_to(values, (*shape, records)).copy())
        data[f"minimum_{name}"] = (data[f"minimum_{name}"][0], data[name][1][..., minimum])

    put("step", step)
    put("epoch", step)
    put("train_loss", 2.3 * np.exp(-time * np.ones((*shape, 1))))
    put("trace", initial[..., None] + change[..., None] * time)
    put("test_loss", loss[..., None] * (1 + (time - 1) ** 2))
    put("selection_loss", loss[..., None] * (1 + (time - 1) ** 2))
    put("effective_rank", rank[..., None] * (1 + 0.5 * (1 - time)))
    names = [f"w{width:g}-{draw}" for width, draw in runs]
    given = {name: config.pop(name, {}) for name in ("model", "dataset")}
    configs = [
        {"model": {"depth": 2, **given["model"], "width": int(width)},
         "dataset": {"data_seed": draw, **given["dataset"]}, **config}
        for width, draw in runs
    ]  # fmt: skip
    coords = {
        "run": names,
        "seed": np.arange(seeds),
        "layer": layers,
        "level": list(LEVELS),
        "state": (("run", "seed"), np.full(shape, state)),
        "config": ("run", [json.dumps(own) for own in configs]),
        "model.width": ("run", np.array([int(width) for width, _ in runs])),
    }
    if draws > 1:
        coords["dataset.data_seed"] = ("run", np.array([draw for _, draw in runs]))
    return xr.Dataset(data, coords)


def configure(data: str = "mnist", size: int = 100, **changes: object) -> dict[str, dict[str, object]]:
    """Settings of a run as the paper has them, for `make_sweep`; changes by overrides, dots as two underscores."""
    config: dict[str, dict[str, object]] = {
        "model": {
            "_target_": "ntklens.models.mlp.MLP", "depth": 2, "activation": "relu", "bias": True,
            "parameterization": "standard",
        },
        "dataset": {"_target_": f"ntklens.data.{data}.load", "name": data, "train_size": size, "data_seed": None,
                    "standardize": False},
        "optimizer": {"_target_": "optax.adam", "learning_rate": 1e-4},
        "training": {"loss": "cross_entropy", "batch_size": None, "epochs": 500},
    }  # fmt: skip
    for name, value in changes.items():
        group, key = name.split("__")
        config[group][key] = value
    return config
