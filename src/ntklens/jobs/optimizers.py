"""A configuration's optimizer, with the rates that its model asks for."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from omegaconf import DictConfig

from ntklens.config.construct import construct
from ntklens.config.options import name_choice
from ntklens.errors import InputError
from ntklens.jobs.models import Model
from ntklens.training.ensemble import Precondition
from ntklens.training.scaled import PRECONDITIONERS, SCALED, scale_steps


class Optimizer(NamedTuple):
    """What updates the parameters.

    Attributes:
        make: learning rate → optax transformation.
        rates: the rate of each leaf of the parameters, of one `learning_rate`; None: one for all.
        precondition: optimizer's state → what Adam multiplies its momentum by, leaf by leaf; None: it does no such.
    """

    make: Callable[[Any], optax.GradientTransformation]
    rates: tuple[float, ...] | None
    precondition: Precondition | None


def build_optimizer(node: DictConfig, network: Model, model: DictConfig) -> Optimizer:
    """Return the optimizer of a configuration.

    Args:
        node: the configuration's `optimizer`, without the learning rate.
        network: what its model became.
        model: the configuration's `model`, for messages.

    Raises:
        InputError: if the model's parameterisation or output scale says nothing of this optimizer.
    """
    target, factors, scale = node._target_, network.adam_factors, network.output_scale
    plain = functools.partial(construct, node)
    options = {str(name): value for name, value in node.items() if name != "_target_"}
    precondition = PRECONDITIONERS[target](options) if target in PRECONDITIONERS else None
    if factors is None and scale is None:
        return Optimizer(lambda rate: plain(learning_rate=rate), None, precondition)
    if target not in SCALED:
        key = "output_scale" if factors is None else "parameterization"
        raise InputError(
            f"model.{key}={model.get(key)}: has no rule for the rates of {name_choice('optimizer', target)}; type "
            f"optimizer=sgd, momentum, adam or adamw, or leave model.{key} out"
        )
    make, step = SCALED[target], 1.0 if scale is None else scale_steps(target, scale)
    if make is None or factors is None:
        build, rates = plain, None if step == 1 else (step,) * network.leaves
    else:
        build, rates = functools.partial(make, factors, **options), tuple(step * factor for factor in factors)
    return Optimizer(lambda rate: build(learning_rate=rate if step == 1 else step * rate), rates, precondition)
