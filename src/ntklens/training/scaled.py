"""Adam and AdamW with a factor of the rate for each leaf, and what Adam divides by."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ntklens.training.ensemble import Params, Precondition


def scale_leaves(factors: Sequence[float]) -> optax.GradientTransformation:
    """Return the transformation that multiplies each leaf by its number; it has no state.

    Args:
        factors: in the order of `jax.tree.leaves` of the parameters.
    """

    def scale(updates: Any, _params: Any) -> Any:
        leaves, tree = jax.tree.flatten(updates)
        return jax.tree.unflatten(tree, [factor * leaf for factor, leaf in zip(factors, leaves, strict=True)])

    return optax.stateless(scale)


def adam(factors: Sequence[float], *, learning_rate: Any, **options: Any) -> optax.GradientTransformation:
    """Return `optax.adam` with the rates factor · learning_rate."""
    return optax.chain(
        optax.scale_by_adam(**options), scale_leaves(factors), optax.scale_by_learning_rate(learning_rate)
    )


def adamw(
    factors: Sequence[float], *, learning_rate: Any, weight_decay: Any = 1e-4, mask: Any = None, **options: Any
) -> optax.GradientTransformation:
    """Return `optax.adamw` with the rates factor · learning_rate.

    The decay per update is learning_rate · weight_decay for all leaves: behind the factors, else it would vanish with
    the width.
    """
    return optax.chain(
        optax.scale_by_adam(**options),
        scale_leaves(factors),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


# Optimizer → its form with factors; None: its rate is one for all leaves.
SCALED: dict[str, Callable[..., optax.GradientTransformation] | None] = {
    "optax.sgd": None,
    "optax.adam": adam,
    "optax.adamw": adamw,
}


def scale_steps(target: str, output_scale: float) -> float:
    """Return by what the rate is multiplied where the outputs are, so that they move at the pace of scale 1.

    Gradient descent moves α f by η α² Θ: the factor is 1/α². An Adam step is as long whatever the gradient's size, and
    moves α f by α times as much: the factor is 1/α.

    Args:
        target: a key of `SCALED`.
        output_scale: α.
    """
    return output_scale ** (-2 if SCALED[target] is None else -1)


def compute_preconditioner(
    opt_state: optax.OptState, *, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> Params:
    """Return P = 1 / (√v̂ + ε), by which Adam multiplies its momentum, with v̂ = v / (1 − b2^t), and P = 0 where v = 0.

    A parameter whose gradient was never other than zero does not move, however large 1/ε is: pixels that are dark in
    training but lit on the probe.

    Args:
        opt_state: of one member; after t updates.
        b2: Adam's.
        eps: Adam's.
        eps_root: Adam's, below the root.

    Returns:
        A tree like the parameters; NaN before the first update.
    """
    is_adam = functools.partial(_is_instance, optax.ScaleByAdamState)
    state = next(filter(is_adam, jax.tree.leaves(opt_state, is_leaf=is_adam)))
    correction = 1 - jnp.asarray(b2, float) ** state.count

    def compute(moment: jax.Array) -> jax.Array:
        size = jnp.sqrt(moment / jnp.where(state.count > 0, correction, 1).astype(moment.dtype) + eps_root) + eps
        return jnp.where(state.count > 0, jnp.where(moment > 0, 1 / size, 0), jnp.nan)

    return jax.tree.map(compute, state.nu)


def _is_instance(kind: type, node: Any) -> bool:
    return isinstance(node, kind)


def _bind_preconditioner(options: Mapping[str, Any]) -> Precondition:
    known = {name: options[name] for name in ("b2", "eps", "eps_root") if name in options}
    return functools.partial(compute_preconditioner, **known)


# Optimizer → (its options) → what computes its preconditioner.
PRECONDITIONERS: dict[str, Callable[[Mapping[str, Any]], Precondition]] = {
    "optax.adam": _bind_preconditioner,
    "optax.adamw": _bind_preconditioner,
}
