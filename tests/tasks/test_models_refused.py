"""Models that no kernel is defined for, or that do not fit the data: one line before training. State is held fixed."""

import json
import sys
from types import ModuleType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hydra import compose, initialize_config_dir

from commands import TOY
from contract import SETS, SMALL
from contract import configure as configure_words
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.data import Dataset, Split
from ntklens.errors import InputError
from ntklens.jobs import datasets, devices, models
from ntklens.jobs.build import build_trainer
from ntklens.jobs.compute import Outcome, compute_seeds
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.models import check_model
from ntklens.jobs.slices import compute_slice
from ntklens.jobs.watcher import Watcher
from ntklens.ntk.structured import layer_traces
from ntklens.signals import Stop
from ntklens.store.trajectory import read_trajectory
from ntklens.store.units import find_units


class Net(nn.Module):
    """A network to be changed."""

    width: int
    classes: int

    def change(self, h):
        return h

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(self.change(h))


class Right(Net):
    pass


class Centred(Net):
    def change(self, h):
        return h - h.mean(0, keepdims=True)


class CentredBehindZero(Net):
    """Samples interact only once the readout, which begins at zero, has moved."""

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros)(h * jax.nn.softmax(h, axis=0))


class Trained(Net):
    @nn.compact
    def __call__(self, x):
        h = nn.BatchNorm(use_running_average=False)(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(h)


class Evaluated(Net):
    @nn.compact
    def __call__(self, x):
        h = nn.BatchNorm(use_running_average=True)(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(nn.relu(h))


class Counted(Net):
    """Integers beside the parameters."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("counters", "calls", lambda: jnp.int32(3))
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1)) * count.value.astype(x.dtype)


class RandomFeatures(Net):
    """State that differs from seed to seed."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        w = self.variable("constants", "w", lambda: jax.random.normal(self.make_rng("params"), (x.shape[1], 4)))
        return nn.Dense(self.classes)(x @ w.value)


class Dropped(Net):
    @nn.compact
    def __call__(self, x):
        h = nn.Dropout(0.5, deterministic=self.is_initializing())(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(h)


class Seven(Net):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(7)(x.reshape(x.shape[0], -1))


class Flat(Net):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x.reshape(x.shape[0], -1))[:, 0]


class Pair(Net):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(self.classes)(x.reshape(x.shape[0], -1))
        return h, h


class Complex(Net):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(self.width, param_dtype=jnp.complex64)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes)(jnp.abs(h))


class ComplexOutput(Net):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1)) * 1j


class Bare(Net):
    @nn.compact
    def __call__(self, x):
        return jnp.zeros((x.shape[0], self.classes)) + x.reshape(x.shape[0], -1)[:, :1]


class Broken(Net):
    @nn.compact
    def __call__(self, x):
        raise KeyError("hidden_3")


class Plain:
    def __init__(self, width, classes):
        pass


class Stateful:
    """A model of nnx: parameters and statistics in one tree, as nnx.split gives it."""

    def __init__(self, width, classes):
        class Inner(nnx.Module):
            def __init__(self, rngs):
                self.first = nnx.Linear(5, width, rngs=rngs)
                self.norm = nnx.BatchNorm(width, use_running_average=True, rngs=rngs)
                self.last = nnx.Linear(width, classes, rngs=rngs)

            def __call__(self, x):
                return self.last(nnx.relu(self.norm(self.first(x))))

        self.make = Inner
        self.graph, _ = nnx.split(Inner(nnx.Rngs(0)))

    def init(self, key, x):
        return nnx.split(self.make(nnx.Rngs(key)))[1]

    def apply(self, params, x):
        return nnx.merge(self.graph, params)(x)


class Tokens(nn.Module):
    width: int
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.Embed(11, self.width)(x).mean(1))


REFUSED = {
    Centred: "the network mixes samples",
    CentredBehindZero: "the network mixes samples",
    Trained: "use_running_average=True",
    RandomFeatures: "init draws at random what is no parameter",
    Dropped: "deterministic=True",
    Seven: "returns outputs of shape [8, 7] for 8 samples of 3 classes, not [8, 3]",
    Flat: "returns outputs of shape [8] for 8 samples",
    Pair: "returns a tuple, not one array [N, C]",
    Complex: "complex64",
    ComplexOutput: "returns complex64, not real numbers",
    Bare: "no 'params'",
    Broken: "KeyError: 'hidden_3'",
    Plain: "has no init(key, inputs) and apply(parameters, inputs)",
}


def configure(*words):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        return compose("config", overrides=[*TOY, "tracking=none", "ensemble=1", "training.epochs=5", *words])


@pytest.fixture
def own(monkeypatch):
    """(name, function or class) → the words that name it, in a module of a user's own."""
    module = ModuleType("own_models")
    monkeypatch.setitem(sys.modules, "own_models", module)
    monkeypatch.setattr(models, "_checked", set())
    datasets.load_cached.cache_clear()

    def put(target, **settings):
        setattr(module, target.__name__, target)
        cfg = configure()
        cfg.model = {"_target_": f"own_models.{target.__name__}", "width": 4}
        return cfg

    return put


def check(cfg):
    check_model(cfg, load_dataset(cfg), build_trainer)


@pytest.mark.parametrize("model", REFUSED, ids=lambda model: model.__name__)
def test_is_refused_in_one_line_that_names_it(own, model):
    with pytest.raises(InputError) as refusal:
        check(own(model))
    line = str(refusal.value)
    assert line.startswith(f"model._target_=own_models.{model.__name__}: ")
    assert REFUSED[model] in line
    assert "\n" not in line


def run(cfg, folder):
    check(cfg)
    assert compute_seeds(cfg, folder / "sweep" / "run", [0], Stop(), Watcher()) == Outcome([], [], [])
    return read_trajectory(folder / "sweep" / "run" / "seed=0" / "trajectory.nc")


@pytest.mark.parametrize(
    ("model", "layers", "count"),
    [
        (Evaluated, ["BatchNorm_0", "Dense_0", "Dense_1"], 5 * 4 + 4 + 2 * 4 + 4 * 3 + 3),
        (Counted, ["Dense_0"], 5 * 3 + 3),
        pytest.param(Stateful, None, 5 * 4 + 4 + 2 * 4 + 4 * 3 + 3, marks=pytest.mark.slow),
    ],
    ids=["flax", "integers", "nnx"],
)
def test_state_is_neither_trained_nor_counted(own, tmp_path, model, layers, count):
    cfg = own(model)
    trajectory = run(cfg, tmp_path)
    assert trajectory.attrs["parameters"] == count
    names = [str(layer) for layer in trajectory.layer.values]
    assert layers is None or names == layers
    assert not [name for name in names if "stat" in name or "counters" in name or "mean" in name]
    if model is Evaluated:
        dataset = load_dataset(cfg)
        network = Evaluated(4, 3)
        key = jax.random.split(jax.random.key(jnp.uint32(0)))[0]
        variables = network.init(key, jnp.zeros((1, 5)))
        traces = layer_traces(network, variables, jnp.asarray(dataset.probe.inputs))
        np.testing.assert_allclose(trajectory.trace_layer[0], [traces[name] for name in layers], rtol=1e-5)


@pytest.mark.slow
def test_a_model_of_tokens_trains(own, monkeypatch, tmp_path):
    generator = np.random.default_rng(0)

    def load(name):
        def draw(size):
            tokens = generator.integers(0, 11, (size, 6))
            return Split(tokens, tokens[:, 0] % 3)

        return Dataset("tokens", draw(24), draw(8), draw(8), draw(6), 3, {})

    cfg = own(Tokens)
    sys.modules["own_models"].load = load
    cfg.dataset = {"_target_": "own_models.load", "name": "tokens"}
    cfg.training.epochs = 60
    cfg.optimizer.learning_rate = 0.05
    trajectory = run(cfg, tmp_path)
    assert trajectory.train_loss[-1] < 0.5 * trajectory.train_loss[0]
    assert sorted(trajectory.layer.values.tolist()) == ["Dense_0", "Embed_0"]


def test_a_model_that_does_not_know_all_tokens_is_refused(own):
    words = ("model=causal_transformer", "model.width=4", "model.depth=1", "model.heads=2")
    cfg = configure_words(*words, *SETS["tokens"], *SMALL, "model.vocabulary=4")
    with pytest.raises(InputError, match=r"^model.vocabulary=4: gives NaN for token 4; the data's tokens are 0 … 4$"):
        check(cfg)


def test_what_is_right_passes_and_is_looked_at_once_for_all_widths(own, monkeypatch):
    cfg = own(Right)
    check(cfg)
    monkeypatch.setattr(models, "check_function", None)
    cfg.model.width = 5
    check(cfg)


def test_devices_that_are_not_there_interrupt_seeds(own, monkeypatch, tmp_path):
    def find_nothing():
        raise RuntimeError(
            "Unable to initialize backend 'cuda': no such thing. (set JAX_PLATFORMS='' to automatically)"
        )

    cfg, run = own(Right), tmp_path / "sweep" / "run"
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with monkeypatch.context() as context:
        context.setattr(jax, "local_devices", find_nothing)
        outcome = compute_slice({"config": cfg, "run": str(run), "seeds": [0]}, None, Stop(), Watcher())
    assert outcome.interrupted == [0]
    assert outcome.error.startswith("JAX_PLATFORMS=cuda: JAX finds no such device on ")
    assert find_units(run, [0])[0].state == "interrupted"
    json.dumps(find_units(run, [0])[0].details)


def test_a_job_with_gpus_does_not_compute_on_processors_unasked(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(InputError, match=r"^hydra\.launcher\.gpus=1: JAX finds no GPU on "):
        devices.check_device()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    devices.check_device()


@pytest.mark.parametrize(
    ("asked", "refused"), [("nonsense", True), ("cpu", False), ("", False), ("nonsense,cpu", False)]
)
def test_a_planner_looks_for_devices_in_a_process_of_its_own(monkeypatch, asked, refused):
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    if not refused:
        devices.check_device_apart()
        return
    with pytest.raises(InputError, match=rf"^JAX_PLATFORMS={asked}: JAX finds no such device on .* \(Unable to init"):
        devices.check_device_apart()
