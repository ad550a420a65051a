"""The table of recorded quantities: one entry makes a quantity measured, stored, continued, tracked and documented.

A function sees a member through one of two objects: at every record a `measure.RecordView`, traced by JAX; where a
kernel is computed a `spectra.KernelView`, on the host. JAX is imported where a function needs it: names and texts are
also wanted where nothing is computed.

To add a quantity, append an entry. `optional=True` leaves it out of a run unless `metrics=[<name>]` asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ntklens.errors import InputError
from ntklens.words import correct_names

if TYPE_CHECKING:
    from ntklens.recording.measure import RecordView
    from ntklens.recording.spectra import KernelView

RECORD = "every record"
SPECTRUM = "sparse, snapshots"
SNAPSHOT = "snapshots"
ENDS = "start, minimum"
# Where a kernel is computed → when the quantities are due that are measured there.
DUE = {"spectrum": (SPECTRUM,), "crossing": (SPECTRUM, SNAPSHOT), "end": (SPECTRUM, SNAPSHOT, ENDS)}
# What a quantity may need beside the kernel, and the record.
START, PREVIOUS, PARAMETERS = "start", "previous", "parameters"
WEIGHTED, OPTIMIZER, TWIN, PROBES, HESSIAN = "weighted", "optimizer", "twin", "probes", "hessian"
ESTIMATE, LIMIT, REGRESSION, LIMIT_REGRESSION = "estimate", "limit", "regression", "limit regression"


@dataclass(frozen=True)
class Quantity:
    """What is recorded under one name.

    Attributes:
      name: of the variable in a trajectory; `minimum_<name>` and `crossing_<name>` hold it at the snapshots.
      definition: in a line, with its normalisation; also the variable's `long_name`.
      when: `RECORD`, `SPECTRUM`, `SNAPSHOT` or `ENDS`.
      measure: for `RECORD` of a `RecordView`, else of a `KernelView` → a value of the shape of `dims`; None: the
        recorder counts it.
      dims: beyond record: (), ("layer",), ("mode",) or ("probe",).
      metric: its name in Weights & Biases, with `{layer}` if it has layers; None: ntk/<name>,
        ntk/layer/<layer>/<name without _layer>.
      optional: whether it is measured only where `metrics` lists it.
      needs: what is kept or computed for it: `START`, `PREVIOUS` (kernels), `PARAMETERS`, `WEIGHTED` (the weighted
        kernel), `OPTIMIZER` (the state of the optimizer), `TWIN` (model.linearised=true), `PROBES` (kernels on
        the further probes), `HESSIAN` (of the train loss), `ESTIMATE` (ntk.trace=estimate), `LIMIT` (the kernel at
        infinite width), `REGRESSION` and `LIMIT_REGRESSION` (predictions of the test samples by kernel regression).
      source: where it is defined, if not by arXiv 2507.05035.
      symbol: its formula in tables and figures, `{at}` where an index says when; none: its name in words.
    """

    name: str
    definition: str
    when: str
    measure: Callable[[Any], Any] | None
    dims: tuple[str, ...] = ()
    metric: str | None = None
    optional: bool = False
    needs: tuple[str, ...] = ()
    source: str = ""
    symbol: str = ""

    def write_symbol(self, minimum: bool = False) -> str:
        """Return what stands for the quantity in tables and figures, or for its value at the minimum."""
        if self.symbol:
            return self.symbol.format(at="_min" if minimum else "")
        words = self.name.replace("_", " ")
        return f"{words} at the minimum" if minimum else words


def _measure_logit_norm(view: RecordView) -> Any:
    import jax.numpy as jnp

    return jnp.sqrt(jnp.mean(jnp.sum(view.logits**2, axis=-1)))


def _measure_weight_change(view: RecordView) -> Any:
    import jax
    import jax.numpy as jnp

    now, start = jax.tree.leaves(view.params), jax.tree.leaves(view.initial)

    def norm(leaves: Iterable[Any]) -> Any:
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))

    return jnp.stack(
        [norm(now[i] - start[i] for i in layer) / norm(start[i] for i in layer) for layer in view.layers.values()]
    )


def _measure_traced(view: KernelView) -> float:
    from ntklens.ntk.metrics import trace_outputs

    return view.measure_rank(trace_outputs(view.kernel))


def _measure_centred(view: KernelView) -> float:
    from ntklens.ntk.metrics import centre_kernel

    return view.measure_rank(centre_kernel(view.kernel))


def _measure_participation(view: KernelView) -> Any:
    from ntklens.ntk.metrics import participation_ratio

    return participation_ratio(view.matrix)


def _measure_distance(view: KernelView) -> float:
    from ntklens.ntk.metrics import kernel_distance

    assert view.start is not None
    return kernel_distance(view.kernel, view.start)


def _measure_limit_distance(view: KernelView) -> float:
    import numpy as np

    assert view.limit is not None
    limit = np.asarray(view.limit, np.float64)
    onto = np.eye(view.kernel.shape[1]) if view.projection is None else view.projection.T @ view.projection
    whole = np.einsum("ij,cd->icjd", limit, onto)
    return float(np.linalg.norm(view.kernel - whole) / np.linalg.norm(whole))


def _measure_velocity(view: KernelView) -> float:
    from ntklens.ntk.metrics import kernel_distance

    assert view.previous is not None
    epoch, kernel = view.previous
    return kernel_distance(view.kernel, kernel) / (view.epoch - epoch)


def _measure_alignment(view: KernelView) -> float:
    from ntklens.ntk.metrics import target_alignment

    return target_alignment(view.kernel, view.labels, view.projection)


def _measure_layer_alignment(view: KernelView) -> list[float]:
    from ntklens.ntk.metrics import target_alignment

    return [target_alignment(share, view.labels, view.projection) for share in view.shares.values()]


def _measure_weighted_rank(view: KernelView) -> float:
    return view.measure_rank(view.kernel if view.weighted is None else view.weighted)


def _measure_nested_rank(divisor: int) -> Callable[[KernelView], float]:
    def measure(view: KernelView) -> float:
        size = len(view.kernel) // divisor
        return view.measure_rank(view.kernel[:size, :, :size]) if size else math.nan

    return measure


def _measure_probe_ranks(view: KernelView) -> list[float]:
    return [view.measure_rank(kernel) for kernel in (view.kernel, *view.others)]


def _measure_probe_traces(view: KernelView) -> list[float]:
    from ntklens.ntk.metrics import trace

    return [float(trace(kernel)) for kernel in (view.kernel, *view.others)]


def _measure_flips(view: RecordView) -> Any:
    from ntklens.ntk.masks import flipped_fraction

    return flipped_fraction(view.measurer.apply, view.params, view.initial, view.data.probe)


def _measure_twin_distance(view: RecordView) -> Any:
    import jax.numpy as jnp

    return jnp.sqrt(jnp.mean(jnp.sum((view.logits - view.twin_logits) ** 2, axis=-1)))


_LAYER, _PROBE = ("layer",), ("probe",)
_LIST = (
    Quantity("step", "updates done", RECORD, None, metric="step"),
    Quantity("epoch", "passes over the training set", RECORD, None, metric="epoch"),
    Quantity("train_loss", "mean loss over the training set", RECORD, lambda view: view.train[0], metric="loss/train"),
    Quantity(
        "selection_loss", "mean loss over the first half of the test set, which chooses the minimum", RECORD,
        lambda view: view.selection[0], metric="loss/selection",
    ),
    Quantity(
        "test_loss", "mean loss over the other half of the test set", RECORD, lambda view: view.test[0],
        metric="loss/test",
    ),
    Quantity(
        "train_accuracy", "fraction of the training set classified correctly", RECORD, lambda view: view.train[1],
        metric="accuracy/train",
    ),
    Quantity(
        "test_accuracy", "fraction of the other half of the test set classified correctly", RECORD,
        lambda view: view.test[1], metric="accuracy/test",
    ),
    Quantity(
        "logit_norm", "root mean square over the probe of |f(x)|", RECORD, _measure_logit_norm,
        metric="function/logit_norm",
    ),
    Quantity("trace", "Tr Θ, the sum of all N·C diagonal entries", RECORD, lambda view: view.traces.sum()),
    Quantity("trace_layer", "a layer's share of Tr Θ", RECORD, lambda view: view.traces, _LAYER),
    Quantity(
        "weight_change", "|θ_ℓ − θ_ℓ(0)| / |θ_ℓ(0)|, biases included", RECORD, _measure_weight_change, _LAYER,
        "weights/layer/{layer}/change",
    ),
    Quantity(
        "effective_rank", "Γ = exp(−Σ p ln p), p the eigenvalues of Θ (N·C × N·C), clipped at 0 and normalised to 1",
        SPECTRUM, lambda view: view.measure_rank(view.kernel), source="Roy & Vetterli 2007",
    ),
    Quantity("effective_rank_traced", "Γ of (1/C) Σ_c Θ[(i,c),(j,c)] (N × N)", SPECTRUM, _measure_traced),
    Quantity(
        "effective_rank_centred", "Γ of H Θ H, centred over samples: H = 1 − (1/N) 1 1ᵀ", ENDS, _measure_centred
    ),
    Quantity(
        "effective_rank_layer", "Γ of a layer's share of Θ", SNAPSHOT,
        lambda view: [view.measure_rank(share) for share in view.shares.values()], _LAYER,
    ),
    Quantity("eigenvalues", "eigenvalues of Θ, descending", SPECTRUM, lambda view: view.eigenvalues, ("mode",)),
    Quantity(
        "participation_ratio", "(Tr Θ)² / ‖Θ‖², how many eigenvalues take part: 1 ≤ it ≤ rank Θ", SPECTRUM,
        _measure_participation, optional=True, source="Roy & Vetterli 2007 compare it with Γ",
    ),
    Quantity(
        "kernel_distance", "1 − cos(Θ, Θ_0) = 1 − ⟨Θ, Θ_0⟩ / (‖Θ‖ ‖Θ_0‖)", SPECTRUM, _measure_distance,
        optional=True, needs=(START,), source="Fort et al. 2020, arXiv 2010.15110", symbol="1 − cos(Θ{at}, Θ_0)",
    ),
    Quantity(
        "kernel_velocity",
        "(1 − cos(Θ_t, Θ_s)) / (t − s) per epoch, s the time at which a spectrum was measured before", SPECTRUM,
        _measure_velocity, optional=True, needs=(PREVIOUS,), source="Fort et al. 2020, arXiv 2010.15110",
    ),
    Quantity(
        "kernel_distance_to_limit",
        "‖Θ − Θ_∞‖ / ‖Θ_∞‖, Θ_∞ = K ⊗ I_C the kernel of the same network at infinite width and at the start (mlp, cnn)",
        SPECTRUM, _measure_limit_distance, optional=True, needs=(LIMIT,),
        source="Jacot et al. 2018, arXiv 1806.07572", symbol="‖Θ{at} − Θ_∞‖ / ‖Θ_∞‖",
    ),
    Quantity(
        "kernel_regression",
        "mean of (f_c − [c = y])² over the test half that test_loss is of, f = f_0 + k(x, X) (k(X, X) + λ 1)⁻¹ "
        "(Y − f_0(X)), k = (1/C) Σ_c Θ[(i,c),(j,c)], λ = 10⁻⁴ Tr k(X, X) / n: kernel regression with Θ at the start "
        "and at the minimum; at most 2000 training samples", ENDS, lambda view: view.regression.loss, optional=True,
        needs=(REGRESSION,), source="Vyas et al. 2022, arXiv 2206.10012",
    ),
    Quantity(
        "kernel_regression_accuracy", "fraction of the same that it classifies correctly", ENDS,
        lambda view: view.regression.accuracy, optional=True, needs=(REGRESSION,),
    ),
    Quantity(
        "limit_regression", "kernel_regression with K of Θ_∞ = K ⊗ I_C in place of k (mlp, cnn)", ENDS,
        lambda view: view.limit_regression.loss, optional=True, needs=(LIMIT, LIMIT_REGRESSION),
    ),
    Quantity(
        "limit_regression_accuracy", "fraction of the same that it classifies correctly", ENDS,
        lambda view: view.limit_regression.accuracy, optional=True, needs=(LIMIT, LIMIT_REGRESSION),
    ),
    Quantity(
        "alignment",
        "yᵀ H Θ H y / (‖H Θ H‖ |H y|²), y the one-hot labels of the probe, H centring over samples: in [0, 1]",
        SPECTRUM, _measure_alignment, optional=True,
        source="Cristianini et al. 2001; Baratin et al. 2021, arXiv 2008.00938",
    ),
    Quantity(
        "alignment_layer", "alignment of a layer's share of Θ", SNAPSHOT, _measure_layer_alignment, _LAYER,
        optional=True, source="Baratin et al. 2021, arXiv 2008.00938",
    ),
    Quantity(
        "trace_error", "standard error of trace, from the spread over draws of signs; 0 where ntk.trace=exact", RECORD,
        lambda view: view.trace_error, optional=True, needs=(ESTIMATE,), source="Hutchinson 1990",
    ),
    Quantity(
        "trace_weighted",
        "Σ_ℓ η_ℓ Tr Θ_ℓ over the parameter arrays ℓ, η_ℓ the rate of ℓ in units of learning_rate: Adam's factors of a "
        "parameterisation, the step of an output scale; Tr Θ where all are one", RECORD,
        lambda view: view.weighted_trace, optional=True, symbol="Tr Θ{at} (weighted)",
    ),
    Quantity(
        "effective_rank_weighted", "Γ of Σ_ℓ η_ℓ Θ_ℓ, the kernel that trains with these rates", SPECTRUM,
        _measure_weighted_rank, optional=True, needs=(WEIGHTED,), symbol="Γ{at} (weighted)",
    ),
    Quantity(
        "trace_preconditioned",
        "Σ_θ η_θ P_θ Σ_ic (∂f_c(x_i)/∂θ)², P = 1 / (√v̂ + ε) of Adam and AdamW, 0 where v = 0; NaN before the first "
        "update and under other optimizers", RECORD, lambda view: view.preconditioned_trace, optional=True,
        needs=(OPTIMIZER,), symbol="Tr Θ{at} (preconditioned)",
    ),
    *(
        Quantity(
            f"effective_rank_{name}", f"Γ on the first N/{divisor} samples of the probe: Γ depends on N", SNAPSHOT,
            _measure_nested_rank(divisor), optional=True, symbol=f"Γ{{at}} (N/{divisor})",
        )
        for name, divisor in (("half", 2), ("quarter", 4), ("eighth", 8))
    ),
    Quantity(
        "effective_rank_probe",
        "Γ on each of the disjoint probes, ntk.probes of them, the first that of effective_rank",
        SNAPSHOT, _measure_probe_ranks, _PROBE, optional=True, needs=(PROBES,),
    ),
    Quantity(
        "trace_probe", "Tr Θ on each of them", SNAPSHOT, _measure_probe_traces, _PROBE, optional=True, needs=(PROBES,),
    ),
    Quantity(
        "sharpness", "λ_max, the largest eigenvalue of the Hessian of train_loss, to 0.1 %", SPECTRUM,
        lambda view: view.sharpness, optional=True, needs=(HESSIAN,), metric="loss/sharpness",
        source="Cohen et al. 2021, arXiv 2103.00065",
    ),
    Quantity(
        "step_sharpness", "η λ_max, η the step of gradient descent, which is stable below 2 (below 2 (1 + μ) with "
        "momentum μ)", SPECTRUM, lambda view: view.learning_rate * view.sharpness, optional=True, needs=(HESSIAN,),
        metric="loss/step_sharpness", source="Cohen et al. 2021, arXiv 2103.00065",
    ),
    Quantity(
        "flipped_units",
        "fraction of ReLU units, over the probe, that are active where they were not at the start, or the reverse; NaN "
        "without ReLU", RECORD, _measure_flips, optional=True, metric="function/flipped_units",
    ),
    Quantity(
        "linearised_train_loss", "train_loss of the linearised twin (model.linearised=true)", RECORD,
        lambda view: view.evaluate_twin(view.data.train), optional=True, needs=(TWIN,), metric="linearised/loss/train",
        source="Lee et al. 2019, arXiv 1902.06720",
    ),
    Quantity(
        "linearised_selection_loss", "selection_loss of the linearised twin", RECORD,
        lambda view: view.evaluate_twin(view.data.selection), optional=True, needs=(TWIN,),
        metric="linearised/loss/selection",
    ),
    Quantity(
        "linearised_test_loss", "test_loss of the linearised twin", RECORD,
        lambda view: view.evaluate_twin(view.data.test), optional=True, needs=(TWIN,), metric="linearised/loss/test",
    ),
    Quantity(
        "linearised_distance", "root mean square over the probe of |f(x) − f_lin(x)|, f_lin the linearised twin",
        RECORD, _measure_twin_distance, optional=True, needs=(TWIN,), metric="linearised/distance",
    ),
)  # fmt: skip
QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _LIST}
# Of what every run records: name → (dimensions beyond record, definition).
VARIABLES = {name: (one.dims, one.definition) for name, one in QUANTITIES.items() if not one.optional}


def list_optional() -> tuple[str, ...]:
    """Return the names that `metrics` may list."""
    return tuple(name for name, one in QUANTITIES.items() if one.optional)


def list_curves() -> tuple[str, ...]:
    """Return the optional quantities that change along a run and are one number each, in the order of the table.

    An error of an estimate is no property of a network, and what is measured at both ends alone has figures of its own.
    """
    return tuple(
        name
        for name, one in QUANTITIES.items()
        if one.optional and not one.dims and one.when != ENDS and ESTIMATE not in one.needs
    )


def check_metrics(metrics: Iterable[str]) -> None:
    """Raise InputError where `metrics` lists something else than optional quantities."""
    known, names = list_optional(), [str(name) for name in metrics]
    if unknown := [name for name in names if name not in known]:
        reason = f"must list none or some of {', '.join(known)}"
        if always := ", ".join(name for name in unknown if name in QUANTITIES):
            reason = f"{always} is always recorded"
        elif meant := correct_names(names, known):
            reason = f"there is no quantity {', '.join(unknown)}; type metrics=[{','.join(meant)}]"
        raise InputError(f"metrics=[{','.join(names)}]: {reason}")


def list_metrics(metrics: Iterable[str], probes: int, estimated: bool = False) -> tuple[str, ...]:
    """Return the optional quantities that a configuration switches on.

    Args:
      metrics: what it lists.
      probes: how many; of several, their own quantities.
      estimated: whether the trace is an estimate, which has an error.
    """
    switched = {need for need, on in ((PROBES, probes > 1), (ESTIMATE, estimated)) if on}
    own = [name for name, one in QUANTITIES.items() if switched & set(one.needs)]
    return tuple(dict.fromkeys([*metrics, *own]))


def select_quantities(metrics: Iterable[str] = ()) -> dict[str, Quantity]:
    """Return, in the order of the table, what a run records.

    Args:
      metrics: the optional ones.

    Returns:
      {name: quantity}.
    """
    wanted = set(metrics)
    return {name: one for name, one in QUANTITIES.items() if not one.optional or name in wanted}


def list_needs(metrics: Iterable[str]) -> set[str]:
    """Return what must be kept or computed for what a run records; see `Quantity.needs`."""
    return {need for one in select_quantities(metrics).values() for need in one.needs}


def name_metric(name: str, layer: str | None = None) -> str:
    """Return the name of a quantity in Weights & Biases, of a layer of it if it has layers."""
    own = QUANTITIES[name].metric if name in QUANTITIES else None
    if layer is None:
        return own or f"ntk/{name}"
    return (own or f"ntk/layer/{{layer}}/{name.removesuffix('_layer')}").format(layer=layer)


def format_table() -> str:
    """Return the table of docs/measurements.md."""
    rows = ["| name | definition | measured at |", "|---|---|---|"]
    for name, one in QUANTITIES.items():
        text = one.definition.replace("|", "\\|") + (f" ({one.source})" if one.source else "")
        text += ", per layer" if one.dims == _LAYER and "layer" not in text else ""
        rows.append(f"| `{name}` | {text} | {one.when}{f'; `metrics=[{name}]`' if one.optional else ''} |")
    return "\n".join(rows)


if __name__ == "__main__":  # python -m ntklens.recording.quantities: the table for docs/measurements.md
    print(format_table())
