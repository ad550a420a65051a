"""The kernel that a configuration's network has at infinite width, where a quantity compares with it."""

import importlib.util

import jax
from omegaconf import DictConfig

from ntklens._compat import NEURAL_TANGENTS
from ntklens.config.construct import construct
from ntklens.data import Dataset, Split
from ntklens.errors import InputError
from ntklens.models.infinite import check_limit, infinite_kernels
from ntklens.ntk.regression import LARGEST
from ntklens.recording.measure import LimitKernels
from ntklens.recording.quantities import LIMIT, LIMIT_REGRESSION, QUANTITIES, REGRESSION


def check_metrics_limit(cfg: DictConfig, dataset: Dataset) -> None:
    """Refuse quantities that need the limit of a network of which it is not known.

    Raises:
        InputError: naming them.
    """
    metrics = list(cfg.get("metrics") or ())
    regressing = [name for name in metrics if {REGRESSION, LIMIT_REGRESSION} & set(QUANTITIES[name].needs)]
    if regressing and len(dataset.train) > LARGEST:
        raise InputError(
            f"metrics=[{','.join(metrics)}]: {', '.join(regressing)}: at most {LARGEST} training samples; type "
            f"dataset.train_size={LARGEST}"
        )
    if not (needing := [name for name in metrics if LIMIT in QUANTITIES[name].needs]):
        return
    asked = f"metrics=[{','.join(metrics)}]: {', '.join(needing)}"
    if importlib.util.find_spec("neural_tangents") is None:
        raise InputError(f"{asked}: needs neural-tangents: {NEURAL_TANGENTS}")
    try:
        check_limit(construct(cfg.model, classes=dataset.classes))
    except InputError as error:
        raise InputError(f"{asked}: {error}") from error


def find_limit(cfg: DictConfig, dataset: Dataset) -> LimitKernels | None:
    """Return K of Θ_∞ = K ⊗ I_C; None where no quantity needs it.

    Args:
        cfg: the configuration; an output scale α multiplies the kernel by α².
        dataset: its data.
    """
    needs = {need for name in cfg.get("metrics") or () for need in QUANTITIES[name].needs}
    if LIMIT not in needs:
        return None
    network = construct(cfg.model, classes=dataset.classes)
    factor = 1.0 if network.output_scale is None else network.output_scale**2

    def compute(first: Split, second: Split) -> jax.Array:
        x1, x2 = (split.convert(split.inputs) for split in (first, second))
        return factor * infinite_kernels(network, x1, x2).ntk

    probe = compute(dataset.probe, dataset.probe)
    if LIMIT_REGRESSION not in needs:
        return LimitKernels(probe)
    return LimitKernels(probe, compute(dataset.train, dataset.train), compute(dataset.test, dataset.train))
