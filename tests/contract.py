"""What every option of a group must do, of conf/ and of the example of one's own: found in the folders, not listed."""

from pathlib import Path

import jax
import numpy as np
from hydra import compose, initialize_config_dir

from ntklens.config.checks import validate
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.jobs.build import Built, build
from ntklens.ntk.structured import kernel
from ntklens.training.ensemble import initialise, run_states
from references import compute_layer_kernels

OWN = Path(__file__).parents[1] / "examples" / "own"
FOLDERS = (find_config_directory(), OWN / "conf")
SMALL = ("dataset.train_size=20", "dataset.test_size=10", "dataset.probe_size=4", "precision=float64", "tracking=none")
SETS = {
    "images": ("dataset=digits",),
    "flat": ("dataset=synthetic", "dataset.input_dim=5", "dataset.classes=3"),
    "tokens": ("dataset=markov", "dataset.vocabulary=4", "dataset.length=3"),
}


def list_options(group):
    return sorted(path.stem for folder in FOLDERS for path in (folder / group).glob("*.yaml"))


def configure(*words):
    """The checked configuration, its options of conf/ or of the example."""
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDERS[0])):
        cfg = compose("config", overrides=[*words, f"hydra.searchpath=[file://{FOLDERS[1]}]"])
    validate(cfg)
    return cfg


def check(cfg) -> Built:
    """Three updates as the obvious loop does them, and the kernel after them that of the float64 Jacobian."""
    built = build(cfg)
    trainer, data, rate = built.trainer, built.dataset, cfg.optimizer.learning_rate
    state = initialise(trainer, [0], rate)
    start = jax.tree.map(lambda leaf: np.array(leaf[0]), state.params)
    (state,) = run_states(trainer, state, data.train, np.array([3]))
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    expected = run_plain_loop(trainer, data.train, start, rate)
    for leaf, wanted, first in zip(*map(jax.tree.leaves, (params, expected, start)), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-12)
        assert leaf.dtype == np.float64
        assert not np.array_equal(leaf, first)
    inputs = data.probe.convert(data.probe.inputs)
    reference = sum(compute_layer_kernels(trainer.apply, params, inputs).values())
    np.testing.assert_allclose(kernel(trainer.apply, params, inputs), reference, rtol=1e-9, atol=1e-9)
    return built


def run_plain_loop(trainer, train, params, rate):
    optimizer = trainer.optimizer(rate)
    state = optimizer.init(params)
    inputs, labels = train.convert(train.inputs), train.labels

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: trainer.loss(trainer.apply(p, inputs), labels).mean())(params)
        updates, state = optimizer.update(gradient, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    for _ in range(3):
        params, state = step(params, state)
    return params
