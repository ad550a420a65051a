"""Two controls of laziness: the output scale, and the linearised twin that trains beside a network.

Both need the parameters at the start, so a member's parameters become one tree: what trains is under "params", as
before; "state", which the kernel and the optimizer leave alone, holds the start under "initial" and the parameters of
the twin under "linearised".
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ntklens.training.ensemble import Params, Trainer

INITIAL, LINEARISED = "initial", "linearised"


def add_controls(trainer: Trainer, output_scale: float | None, linearised: bool) -> Trainer:
    """Return the trainer of α (f − f_0), and of its linearised twin beside it.

    F(x; θ) = α (f(x; θ) − f(x; θ_0)), or f itself where α is None;
    the twin is F's expansion at θ_0 in a parameter φ of its own, φ_0 = θ_0:
    F_lin(x; φ) = F(x; θ_0) + ∂F(x; θ_0)/∂θ · (φ − θ_0), computed forward (jvp).
    Both take the same updates by states of the optimizer of their own; the rate of the optimizer has been scaled before
    (`scaled.scale_steps`).

    Sources: Chizat, Oyallon & Bach 2019 (1812.07956) and Geiger et al. 2020 (1906.08034) for α; Lee et al. 2019
    (1902.06720) for the twin.

    Args:
        trainer: of f, whose parameters are flax's {"params": …}.
        output_scale: α, positive; None: f itself.
        linearised: whether there is a twin.
    """
    f = trainer.apply

    def init(key: jax.Array) -> Params:
        start = trainer.init(key)["params"]
        state = {INITIAL: start} | ({LINEARISED: start} if linearised else {})
        return {"params": start, "state": state}

    def get(params: Params, name: str) -> Params:
        return {"params": params["state"][name]}

    def get_start(params: Params) -> Params:
        return jax.lax.stop_gradient(get(params, INITIAL))

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        outputs = f({"params": params["params"]}, inputs)
        return outputs if output_scale is None else output_scale * (outputs - f(get_start(params), inputs))

    def apply_twin(params: Params, inputs: jax.Array) -> jax.Array:
        start = get_start(params)
        move = jax.tree.map(jnp.subtract, get(params, LINEARISED), start)
        outputs, change = jax.jvp(lambda at: f(at, inputs), (start,), (move,))
        return outputs + change if output_scale is None else output_scale * change

    def optimise(rate: Any) -> optax.GradientTransformation:
        inner = trainer.optimizer(rate)

        def init_state(params: Params) -> tuple:
            own = inner.init({"params": params["params"]})
            return (own, inner.init(get(params, LINEARISED))) if linearised else (own,)

        def update(gradient: Params, opt_state: tuple, params: Params) -> tuple[Params, tuple]:
            own, state = inner.update({"params": gradient["params"]}, opt_state[0], {"params": params["params"]})
            moves, states = {INITIAL: jax.tree.map(jnp.zeros_like, params["state"][INITIAL])}, [state]
            if linearised:
                twin, state = inner.update(get(gradient, LINEARISED), opt_state[1], get(params, LINEARISED))
                moves[LINEARISED], states = twin["params"], [*states, state]
            return {"params": own["params"], "state": moves}, tuple(states)

        return optax.GradientTransformation(init_state, update)

    def precondition(opt_state: tuple) -> Params:
        assert trainer.precondition is not None
        own = trainer.precondition(opt_state[0])["params"]
        return {"params": own, "state": {INITIAL: own} | ({LINEARISED: own} if linearised else {})}  # the latter unused

    rates = trainer.rates and trainer.rates * (3 if linearised else 2)  # those of what is held fixed are not used
    return dataclasses.replace(
        trainer,
        init=init,
        apply=apply,
        optimizer=optimise,
        twin=apply_twin if linearised else None,
        rates=rates,
        precondition=trainer.precondition and precondition,
    )
