"""How far the kernel moves in a fixed time of gradient descent: as 1/width under ntk, as far at any width under mup."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntklens.data import Split
from ntklens.models.cnn import CNN
from ntklens.models.mlp import MLP
from ntklens.ntk.structured import kernel
from ntklens.training.ensemble import Trainer, initialise, run_states
from ntklens.training.losses import LOSSES

# Smooth activations: the units of a ReLU that change sides move the kernel by more, about width^(-3/4).
NETWORKS = {
    "mlp": (lambda width, name: MLP(width, 2, 2, activation="tanh", parameterization=name, base_width=64), (9,)),
    "cnn": (lambda width, name: CNN(width, 2, 2, activation="tanh", parameterization=name, base_width=16), (6, 6, 1)),
}
WIDTHS = {"mlp": (64, 256, 1024), "cnn": (16, 64, 256)}
SEEDS, STEPS, RATE, SAMPLES = range(6), 20, 0.02, 8
EXPECTED, TOLERANCE = {"ntk": -1.0, "mup": 0.0}, 0.2


def measure(name, parameterization, width):
    """‖Θ_t − Θ_0‖ / ‖Θ_0‖ of each seed."""
    build, shape = NETWORKS[name]
    rng = np.random.default_rng(0)
    train = Split(rng.normal(size=(SAMPLES, *shape)).astype(np.float32), np.arange(SAMPLES) % 2)
    model, x = build(width, parameterization), jnp.asarray(train.inputs)
    trainer = Trainer(lambda key: model.init(key, x), model.apply, LOSSES["mse"], optax.sgd)
    look = jax.jit(lambda params: kernel(model.apply, params, x))

    def look_at_all(state):
        return [np.asarray(look(jax.tree.map(lambda leaf, k=k: leaf[k], state.params)), float) for k in SEEDS]

    states = run_states(trainer, initialise(trainer, SEEDS, RATE), train, np.array([0, STEPS]))
    first, last = map(look_at_all, states)
    return [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(first, last, strict=True)]


def fit_slopes(name, parameterization):
    """The exponent of the width of each seed."""
    rows = [np.log(measure(name, parameterization, width)) for width in WIDTHS[name]]
    slopes = np.polyfit(np.log(WIDTHS[name]), rows, 1)[0]
    print(name, parameterization, np.exp(rows).mean(1), slopes.mean(), slopes.std(ddof=1) / len(slopes) ** 0.5)
    return slopes


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", EXPECTED)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_kernel_moves_as_far_as_the_parameterisation_says(name, parameterization):
    assert fit_slopes(name, parameterization).mean() == pytest.approx(EXPECTED[parameterization], abs=TOLERANCE)
