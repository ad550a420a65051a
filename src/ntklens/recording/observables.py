"""Scalars of trajectories, as SCIENCE defines them: one function each, listed once in `OBSERVABLES`.

Those of optional quantities, at the minimum, come from the table of quantities: an entry there is one here.

Every function takes one trajectory or many: a Dataset whose variables end in the dimensions that a trajectory has
(record; record, layer; level), whatever stands before them, and returns one number for each of those, (…).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntklens.errors import InputError
from ntklens.recording.quantities import QUANTITIES, list_curves

UNRESOLVED_STEPS = 30  # fewer updates to the minimum are no trajectory
BEYOND = 1.05  # times the updates to the minimum: training that ends sooner has not shown that the loss rises
PLATEAU = 0.01  # of the selection loss: what is so close to the minimum is as good as it
TAIL = 0.1  # share of the path in ln L_train that is local to the minimum
STRAIGHT = 0.95  # R² below which no single χ exists


class AdaptationRate(NamedTuple):
    """χ and how well one number describes the path.

    Attributes:
      slope: χ = δ Tr Θ / δ ln L_train; NaN on fewer than two points.
      r2: coefficient of determination of the straight line; NaN where Tr Θ is constant.
    """

    slope: np.ndarray
    r2: np.ndarray


def fit_path_slope(x: np.ndarray, y: np.ndarray) -> AdaptationRate:
    """Fit y ≈ a + slope · x along the polygon through (x_k, y_k), weighted by |dx|.

    Args:
      x: corners, shape […, K].
      y: corners, shape […, K].

    Returns:
      Slope and R², shape […]; NaN if the path has no extent in x.
    """
    weights = np.abs(np.diff(x, axis=-1))
    length = weights.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.where(length > 0, weights / length, np.nan)
        mean = np.sum(weights * (x[..., :-1] + x[..., 1:]) / 2, axis=-1, keepdims=True)
        other = np.sum(weights * (y[..., :-1] + y[..., 1:]) / 2, axis=-1, keepdims=True)

        def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            left, right = a[..., :-1], a[..., 1:]
            start, end = b[..., :-1], b[..., 1:]
            return np.sum(weights * (2 * left * start + 2 * right * end + left * end + right * start) / 6, axis=-1)

        x, y = x - mean, y - other
        xx, xy, yy = covariance(x, x), covariance(x, y), covariance(y, y)
        return AdaptationRate(
            np.where(xx > 0, xy / xx, np.nan), np.where((xx > 0) & (yy > 0), xy**2 / (xx * yy), np.nan)
        )


def compute_adaptation_rate(data: xr.Dataset, tail: float = 1.0) -> AdaptationRate:
    """Return the least-squares slope of Tr Θ against ln L_train from record 0 to the minimum.

    The points are spread evenly over the path in ln L_train: each piece of the path between two records, a straight
    line, weighs as much as it is long, |Δ ln L_train|. So the result does not depend on the schedule of records.

        χ = Cov(ln L, Tr) / Var(ln L),  R² = Cov² / (Var(ln L) Var(Tr)),  moments by ∫ … |d ln L| along the path.

    Source: χ as arXiv 2507.05035 defines it, δTrΘ / δ ln L_train.

    Args:
      data: one trajectory or many, with `step`, `trace`, `train_loss` and `minimum_step`.
      tail: share of the range of ln L_train, next to the minimum, that counts.

    Returns:
      Slope (in units of the trace) and R², shape […].
    """
    log_loss, trace = trace_path(data)
    if tail < 1:
        last = log_loss[..., -1:]
        near = log_loss <= last + tail * (log_loss.max(axis=-1, keepdims=True) - last)
        near[..., -1] = True
        first = np.where(np.cumprod(near[..., ::-1], axis=-1)[..., ::-1] > 0, np.arange(near.shape[-1]), near.shape[-1])
        start = np.minimum.reduce(first, axis=-1)[..., None]
        start = np.maximum(start - 1, 0)  # at least one piece
        index = np.maximum(np.arange(near.shape[-1]), start)
        log_loss, trace = np.take_along_axis(log_loss, index, -1), np.take_along_axis(trace, index, -1)
    return fit_path_slope(log_loss, trace)


def trace_path(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return ln L_train and Tr Θ from record 0 to the minimum, shape […, record].

    What is missing, or lies beyond the minimum, repeats the corner before it, which adds nothing to the path.
    """
    step, loss, trace = (data[name].values.astype(float) for name in ("step", "train_loss", "trace"))
    on_path = (step <= data["minimum_step"].values[..., None]) & (loss > 0) & np.isfinite(trace)
    last = np.maximum.accumulate(np.where(on_path, np.arange(step.shape[-1]), -1), axis=-1)
    first = np.argmax(on_path, axis=-1)[..., None]
    index = np.where(last < 0, first, last)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_loss = np.log(np.where(on_path, loss, np.nan))
    return np.take_along_axis(log_loss, index, -1), np.take_along_axis(np.where(on_path, trace, np.nan), index, -1)


def compute_chord(data: xr.Dataset) -> np.ndarray:
    """Return (Tr Θ_min − Tr Θ_0) / (ln L_train at the minimum − ln L_train at the start)."""
    log_loss, trace = trace_path(data)
    with np.errstate(invalid="ignore", divide="ignore"):
        fall = log_loss[..., -1] - log_loss[..., 0]
        return np.where(fall != 0, (trace[..., -1] - trace[..., 0]) / fall, np.nan)


def compute_trace_change(data: xr.Dataset) -> np.ndarray:
    """Return ΔTr = Tr Θ_min − Tr Θ_0."""
    return data["minimum_trace"].values - data["trace"].values[..., 0]


def compute_trace_ratio(data: xr.Dataset) -> np.ndarray:
    """Return β = (Tr Θ_min − Tr Θ_0) / Tr Θ_0, which may be negative."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return compute_trace_change(data) / data["trace"].values[..., 0]


def find_last_step(data: xr.Dataset) -> np.ndarray:
    """Return the update of the last record."""
    step = data["step"].values
    return np.max(np.where(np.isfinite(step), step, -np.inf), axis=-1)


def compute_weighted_trace_ratio(data: xr.Dataset) -> np.ndarray:
    """Return β of the kernel whose arrays count with the rates they are trained with."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return data["minimum_trace_weighted"].values / data["trace_weighted"].values[..., 0] - 1


def is_at_last_record(data: xr.Dataset) -> np.ndarray:
    """Return 1 where training ended before the test loss rose; NaN if missing.

    The minimum lies at the last record, or less than 5 % of its updates were done after it: the last record may lie
    next to the one before it, where noise alone decides between the two.
    """
    minimum = data["minimum_step"].values
    return np.where(np.isfinite(minimum), (find_last_step(data) <= BEYOND * minimum).astype(float), np.nan)


def is_unresolved(data: xr.Dataset) -> np.ndarray:
    """Return 1 where the minimum came before update 30: too few points for a trajectory; NaN if missing."""
    minimum = data["minimum_step"].values
    return np.where(np.isfinite(minimum), (minimum < UNRESOLVED_STEPS).astype(float), np.nan)


def find_resolution(data: xr.Dataset) -> np.ndarray:
    """Return, as text, whether the minimum can be read; empty if missing.

    `open`: it is the last record, or next to it, and training ended before the loss rose. `unresolved`: it came before
    update 30, too early for a trajectory. `resolved`: neither.

    Returns:
        Text of the data's shape without the records.
    """
    last, early = is_at_last_record(data), is_unresolved(data)
    return np.where(last > 0, "open", np.where(early > 0, "unresolved", np.where(np.isnan(last), "", "resolved")))


def is_dead(data: xr.Dataset) -> np.ndarray:
    """Return 1 where the last function recorded is constant over the probe; NaN if missing."""
    if "constant_output" in data:
        return data["constant_output"].values.astype(float)
    if "constant_output" in data.attrs:
        return np.array(float(data.attrs["constant_output"]))
    return np.full(data["minimum_step"].shape, np.nan)


def find_plateau(data: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest value of a variable over the plateau of the minimum.

    The plateau is the stretch of records around the minimum whose selection loss is within 1 % of it: any of them could
    have been chosen by other test samples.

    Args:
      data: one trajectory or many.
      name: a variable along records, such as `trace`.

    Returns:
      Two arrays, shape […].
    """
    loss, values, step = data["selection_loss"].values, data[name].values, data["step"].values
    level = data["minimum_selection_loss"].values[..., None] * (1 + PLATEAU)
    with np.errstate(invalid="ignore"):
        low = loss <= level
        before = step <= data["minimum_step"].values[..., None]
    backward = np.cumprod(np.where(before, low, True)[..., ::-1], axis=-1)[..., ::-1] > 0
    forward = np.cumprod(np.where(before, True, low), axis=-1) > 0
    inside = np.where(before, backward, forward) & np.isfinite(values)
    minimum = data[f"minimum_{name}"].values
    least = np.fmin(minimum, np.min(np.where(inside, values, np.inf), axis=-1))
    largest = np.fmax(minimum, np.max(np.where(inside, values, -np.inf), axis=-1))
    return np.where(np.isfinite(minimum), least, np.nan), np.where(np.isfinite(minimum), largest, np.nan)


def _initial(name: str) -> Callable[[xr.Dataset], np.ndarray]:
    return lambda data: data[name].values[..., 0]


def _minimum(name: str) -> Callable[[xr.Dataset], np.ndarray]:
    return lambda data: data[f"minimum_{name}"].values


def _plateau(name: str, end: int) -> Callable[[xr.Dataset], np.ndarray]:
    return lambda data: find_plateau(data, name)[end]


@dataclass(frozen=True)
class Observable:
    """A scalar of a trajectory.

    Attributes:
      name: of its column and summary key.
      symbol: as SCIENCE writes it.
      description: in words.
      measure: one trajectory or many → (…).
      main: whether status.json, the trackers and the table at the end of a run hold it, too.
      trained: whether it depends on training; if so, it is worth nothing where the minimum is unresolved.
      fitted: whether laws of it are fitted along every axis.
      summarised: whether the summary holds its laws.
      charted: whether its laws are drawn.
      mapped: whether it is on the heat map over two axes.
      tabled: whether it is a column of the table of a sweep.
      dashboard: whether the W&B dashboard draws it against the axis.
      signed: whether it may be negative; a log scale then shows its magnitude.
      transition: whether a crossover along the width is looked for.
      joint: whether joint laws over width and amount of data are fitted.
      linear: whether its scale is linear: a fraction, of which no power law is looked for.
      compared: whether its exponents under different settings stand side by side.
      asked: of which optional quantity it is the value at the minimum; drawn in a figure apart. Empty: of none.
    """

    name: str
    symbol: str
    description: str
    measure: Callable[[xr.Dataset], np.ndarray]
    main: bool = False
    trained: bool = True
    fitted: bool = False
    summarised: bool = False
    charted: bool = False
    mapped: bool = False
    tabled: bool = False
    dashboard: bool = False
    signed: bool = False
    transition: bool = False
    joint: bool = False
    linear: bool = False
    compared: bool = False
    asked: str = ""


_LIST = (
    Observable(
        "minimum_loss", "L_min", "test loss at the minimum", _minimum("test_loss"), main=True, fitted=True,
        summarised=True, charted=True, mapped=True, tabled=True, dashboard=True, joint=True, compared=True,
    ),
    Observable("minimum_step", "update of the minimum", "updates done at the minimum", _minimum("step"), main=True),
    Observable("minimum_epoch", "epoch of the minimum", "passes over the training set", _minimum("epoch")),
    Observable(
        "minimum_accuracy", "accuracy at the minimum", "test accuracy", _minimum("test_accuracy"), main=True,
        charted=True, linear=True,
    ),
    Observable(
        "initial_trace", "Tr Θ_0", "trace before training", _initial("trace"), main=True, trained=False, fitted=True,
        summarised=True, charted=True, tabled=True, compared=True,
    ),
    Observable(
        "initial_trace_weighted", "Tr Θ_0 (weighted)", "trace before training, arrays weighted by their rates",
        _initial("trace_weighted"), trained=False, fitted=True, summarised=True, charted=True, compared=True,
    ),
    Observable(
        "minimum_trace", "Tr Θ_min", "trace at the minimum", _minimum("trace"), main=True, fitted=True, tabled=True
    ),
    Observable(
        "minimum_trace_weighted", "Tr Θ_min (weighted)", "trace at the minimum, arrays weighted by their rates",
        _minimum("trace_weighted"), fitted=True,
    ),
    Observable(
        "trace_change", "ΔTr", "Tr Θ_min − Tr Θ_0", compute_trace_change, main=True, fitted=True, summarised=True,
        charted=True, signed=True, compared=True,
    ),
    Observable(
        "trace_ratio", "β", "(Tr Θ_min − Tr Θ_0) / Tr Θ_0", compute_trace_ratio, main=True, fitted=True,
        summarised=True, charted=True, mapped=True, tabled=True, dashboard=True, signed=True, transition=True,
        compared=True,
    ),
    Observable(
        "trace_ratio_weighted", "β (weighted)", "β of the kernel whose arrays are weighted by their rates",
        compute_weighted_trace_ratio, fitted=True, summarised=True, charted=True, signed=True, compared=True,
    ),
    Observable(
        "adaptation_rate", "χ", "δ Tr Θ / δ ln L_train", lambda data: compute_adaptation_rate(data).slope, main=True,
        fitted=True, summarised=True, charted=True, tabled=True, dashboard=True, signed=True, compared=True,
    ),
    Observable(
        "adaptation_rate_r2", "R² of χ", "below 0.95: no single χ exists",
        lambda data: compute_adaptation_rate(data).r2, main=True,
    ),
    Observable("adaptation_rate_chord", "χ (chord)", "ΔTr / Δ ln L_train from start to minimum", compute_chord),
    Observable(
        "adaptation_rate_local", "χ (local)", "slope over the last tenth of ln L_train before the minimum",
        lambda data: compute_adaptation_rate(data, TAIL).slope,
    ),
    Observable("initial_logit_norm", "|f|_0", "logit norm before training", _initial("logit_norm"), trained=False),
    Observable(
        "minimum_logit_norm", "|f|_min", "logit norm at the minimum", _minimum("logit_norm"), fitted=True
    ),
    Observable(
        "initial_effective_rank", "Γ_0", "effective rank before training", _initial("effective_rank"), main=True,
        trained=False, fitted=True, summarised=True, charted=True, tabled=True,
    ),
    Observable(
        "minimum_effective_rank", "Γ_min", "effective rank at the minimum", _minimum("effective_rank"), main=True,
        fitted=True, summarised=True, charted=True, mapped=True, tabled=True, dashboard=True, transition=True,
        compared=True,
    ),
    Observable(
        "minimum_effective_rank_weighted", "Γ_min (weighted)", "at the minimum, arrays weighted by their rates",
        _minimum("effective_rank_weighted"), fitted=True, summarised=True, charted=True, compared=True,
    ),
    Observable(
        "initial_effective_rank_traced", "Γ_0 (traced)", "of the kernel averaged over outputs, before training",
        _initial("effective_rank_traced"), trained=False,
    ),
    Observable(
        "minimum_effective_rank_traced", "Γ_min (traced)", "of the kernel averaged over outputs, at the minimum",
        _minimum("effective_rank_traced"), fitted=True,
    ),
    Observable(
        "initial_effective_rank_centred", "Γ_0 (centred)", "of the kernel centred over samples, before training",
        _initial("effective_rank_centred"), trained=False,
    ),
    Observable(
        "minimum_effective_rank_centred", "Γ_min (centred)", "of the kernel centred over samples, at the minimum",
        _minimum("effective_rank_centred"), fitted=True,
    ),
    Observable(
        "plateau_trace_low", "Tr Θ, 1 % plateau, least", "over records as good as the minimum", _plateau("trace", 0)
    ),
    Observable(
        "plateau_trace_high", "Tr Θ, 1 % plateau, most", "over records as good as the minimum", _plateau("trace", 1)
    ),
    Observable(
        "plateau_step_low", "first update of the 1 % plateau", "n_1: argmin alone means little where it is long",
        _plateau("step", 0),
    ),
    Observable(
        "plateau_step_high", "last update of the 1 % plateau", "over records as good as the minimum",
        _plateau("step", 1),
    ),
    Observable(
        "plateau_effective_rank_low", "Γ, 1 % plateau, least", "over records as good as the minimum",
        _plateau("effective_rank", 0),
    ),
    Observable(
        "plateau_effective_rank_high", "Γ, 1 % plateau, most", "over records as good as the minimum",
        _plateau("effective_rank", 1),
    ),
    Observable("at_last_record", "minimum is last", "1: training ended before the test loss rose", is_at_last_record),
    Observable("unresolved", "unresolved", f"1: minimum before update {UNRESOLVED_STEPS}", is_unresolved),
    Observable("dead", "dead", "1: the network is constant over the probe", is_dead),
)  # fmt: skip
OBSERVABLES: dict[str, Observable] = {observable.name: observable for observable in _LIST}
for _name in list_curves():
    OBSERVABLES.setdefault(
        f"minimum_{_name}",
        Observable(
            f"minimum_{_name}", QUANTITIES[_name].write_symbol(minimum=True), QUANTITIES[_name].definition,
            _minimum(_name), fitted=True, summarised=True, charted=True, asked=_name,
        ),
    )  # fmt: skip
FLAGS = ("at_last_record", "unresolved", "dead")


def list_observables(use: str) -> tuple[str, ...]:
    """Return the names of the observables that have a use: a flag of `Observable`, such as `fitted` or `charted`."""
    return tuple(name for name, one in OBSERVABLES.items() if getattr(one, use))


def compute_observables(trajectory: xr.Dataset) -> dict[str, float]:
    """Return the main scalars of one trajectory under the names that tables and trackers use.

    Args:
      trajectory: one seed.

    Returns:
      name → value; `adaptation_rate_r2` below 0.95 means that no single χ exists.
    """
    return {name: float(one.measure(trajectory)) for name, one in OBSERVABLES.items() if one.main}


def measure_observables(data: xr.Dataset) -> xr.Dataset:
    """Return every scalar of every trajectory.

    Beside those of `OBSERVABLES`, whatever the trajectories hold: `initial_<name>`, `minimum_<name>` and
    `crossing_<name>_<level>` for each variable, with `.<layer>` behind it where there are layers.

    Args:
      data: as `ntklens.load` returns it.

    Returns:
      Dataset of variables (run, seed), NaN where missing, with `symbol` and `long_name` as attributes, and the
      coordinates of `data` along run and seed.

    Raises:
      InputError: if `data` is not what `ntklens.load` returns.
    """
    _check_loaded(data)
    shape = ("run", "seed")
    coords = {name: value for name, value in data.coords.items() if set(value.dims) <= set(shape)}
    one_seed = data.isel(run=slice(1), seed=slice(1))
    found: dict[str, tuple] = {
        name: (shape, np.asarray(one.measure(data), float), {"symbol": one.symbol, "long_name": one.description})
        for name, one in OBSERVABLES.items()
        if _is_measurable(one, one_seed)
    }
    for name, variable in data.data_vars.items():
        for label, values in _list_snapshots(str(name), variable, data):
            found.setdefault(
                label, (shape, values, {"symbol": label, "long_name": variable.attrs.get("long_name", "")})
            )
    for label, values, description in _measure_layers(data):
        found[label] = (shape, values, {"symbol": label, "long_name": description})
    return xr.Dataset(found, coords)


def _measure_layers(data: xr.Dataset) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield `<name>.<layer>`, values (run, seed) and description of ΔTr and β of each layer's share of Θ."""
    if not {"trace_layer", "minimum_trace_layer"} <= set(data.variables):
        return
    dims = ("run", "seed", "layer")
    initial = data["trace_layer"].isel(record=0).transpose(*dims).values.astype(float)
    minimum = data["minimum_trace_layer"].transpose(*dims).values.astype(float)
    for number, layer in enumerate(data["layer"].values):
        start, change = initial[..., number], minimum[..., number] - initial[..., number]
        ratio = np.divide(change, start, out=np.full_like(start, np.nan), where=start > 0)
        yield f"trace_change_layer.{layer}", change, "ΔTr of the layer's share of Θ"
        yield f"trace_ratio_layer.{layer}", ratio, "β of the layer's share of Θ"


def _check_loaded(data: Any) -> None:
    if isinstance(data, str | PathLike):
        raise InputError(f"data: takes what ntklens.load(path) returns; here a path: ntklens.load({str(data)!r})")
    if not isinstance(data, xr.Dataset):
        raise InputError(f"data: takes what ntklens.load(path) returns; here a {type(data).__name__}")
    for dim in ("run", "seed"):
        if dim not in data.dims:
            raise InputError(
                f"data: has no dimension {dim}, which .isel({dim}=0) removes; .isel({dim}=[0]) keeps it, with one {dim}"
            )


def _is_measurable(observable: Observable, one_seed: xr.Dataset) -> bool:
    try:
        return np.shape(observable.measure(one_seed)) == (1, 1)
    except KeyError:  # trajectories that hold less than today's
        return False


def _list_snapshots(name: str, variable: xr.DataArray, data: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    """Return (label, values (run, seed)) of what a variable holds at the start, the minimum and the crossings."""
    dims = variable.dims[2:]
    if "mode" in dims or not np.issubdtype(variable.dtype, np.number):
        return []
    if dims[:1] == ("record",):
        return _list_layers(f"initial_{name}", variable.isel(record=0), data) if name not in ("step", "epoch") else []
    if dims[:1] == ("level",):
        return [
            pair
            for index, level in enumerate(data["level"].values)
            for pair in _list_layers(f"{name}_{level:g}", variable.isel(level=index), data)
        ]
    return _list_layers(name, variable, data)


def _list_layers(label: str, variable: xr.DataArray, data: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    if variable.dims == ("run", "seed"):
        return [(label, variable.values.astype(float))]
    if variable.dims != ("run", "seed", "layer"):
        return []
    layers = data["layer"].values
    return [
        (f"{label}.{layer}", variable.isel(layer=number).values.astype(float)) for number, layer in enumerate(layers)
    ]
