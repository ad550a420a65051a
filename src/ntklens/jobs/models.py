"""A configuration's model: built, its state held fixed, and refused before training where a kernel is not defined."""

import contextlib
import functools
import json
import pydoc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from ntklens.config.construct import construct
from ntklens.config.options import name_choice
from ntklens.data import Dataset
from ntklens.errors import InputError
from ntklens.ntk.layers import call_function, mark_parameters
from ntklens.ntk.structured import check_function
from ntklens.training.ensemble import Params, Trainer, start_member

Init = Callable[[jax.Array], Params]
Apply = Callable[[Params, jax.Array], jax.Array]
Build = Callable[[DictConfig, Dataset], Trainer]

SAMPLES = 8  # on which a model is tried


class Model(NamedTuple):
    """A configuration's model, as functions of its parameters alone.

    Attributes:
        init: key → parameters, floating-point arrays in the precision that is switched on.
        apply: (parameters, inputs [N, …]) → logits [N, C].
        adam_factors: by what Adam's rate is multiplied, of each leaf of the parameters in the order of
            `jax.tree.leaves`; None: the model scales no rate.
        output_scale: α of the model; None: it has none.
        linearised: whether its linearised twin is to train beside it.
        leaves: how many arrays its parameters are.
    """

    init: Init
    apply: Apply
    adam_factors: tuple[float, ...] | None
    output_scale: float | None
    linearised: bool
    leaves: int


def build_model(node: DictConfig, classes: int, sample: jax.Array) -> Model:
    """Return a configuration's model.

    What its `init` returns beside parameters (the running statistics of batch normalisation, integers) is held fixed as
    it was initialised: neither trained nor part of the kernel.

    Args:
        node: the configuration's `model`.
        classes: number of outputs C.
        sample: inputs (1, …).

    Returns:
        Its functions, and what its parameterisation asks of the optimizer.

    Raises:
        InputError: naming the model.
    """  # noqa: DOC501
    try:
        network = construct(node, classes=classes)
    except InputError as error:
        text = str(error)
        raise InputError(f"model.{text}" if text.startswith("_target_=") else text) from error
    except Exception as error:  # a class of the user's own raises anything
        raise _refuse(node, error) from error
    if not callable(getattr(network, "init", None)) or not callable(getattr(network, "apply", None)):
        raise _refuse(node, "has no init(key, inputs) and apply(parameters, inputs), as a flax.linen.Module has")
    init, apply = _hold_fixed(network, sample, node)
    params = jax.eval_shape(init, jax.random.key(0))
    factors = _list_adam_factors(network, params, node)
    scale, linearised = getattr(network, "output_scale", None), getattr(network, "linearised", False)
    return Model(init, apply, factors, scale, linearised, len(jax.tree.leaves(params)))


def _list_adam_factors(network: Any, params: Params, node: DictConfig) -> tuple[float, ...] | None:
    """Return what `list_adam_factors(parameters)` of a network gives, if it has that."""
    if not hasattr(network, "list_adam_factors"):
        return None
    factors = network.list_adam_factors(params)
    if factors is None:
        return None
    trees: list[Any] = [jax.tree.structure(tree) for tree in (factors, params)]
    if trees[0] != trees[1]:
        raise _refuse(node, "list_adam_factors(parameters) must return a number for each of the parameters")
    return tuple(float(factor) for factor in jax.tree.leaves(factors))


def _hold_fixed(network: Any, sample: jax.Array, node: DictConfig) -> tuple[Init, Apply]:
    marks: list[bool] = []

    def initialise(key: jax.Array, sample: jax.Array) -> Any:
        return call_function(lambda key, sample: network.init(key, sample), key, sample)

    def look(key: jax.Array) -> Any:
        drawn = initialise(key, sample)
        marks[:] = jax.tree.leaves(mark_parameters(network.apply, drawn))
        return drawn

    def convert(leaf: Any) -> Any:
        return leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    tree = jax.tree.structure(jax.eval_shape(look, jax.random.key(0)))
    if all(marks):

        def init(key: jax.Array) -> Params:  # drawn in float32, so that both precisions start from the same function
            return jax.tree.map(convert, initialise(key, sample))

        return init, network.apply

    fixed = [convert(leaf) for leaf in _draw_fixed(network, sample, marks, node)]

    def select(drawn: Any) -> Params:
        leaves = [leaf if mark else None for leaf, mark in zip(jax.tree.leaves(drawn), marks, strict=True)]
        params = jax.tree.unflatten(tree, leaves)
        if isinstance(params, Mapping):  # collections without a parameter
            return {name: value for name, value in params.items() if jax.tree.leaves(value)}
        return params

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        given, held = iter(jax.tree.leaves(params)), iter(fixed)
        leaves = [next(given) if mark else next(held) for mark in marks]
        return network.apply(jax.tree.unflatten(tree, leaves), inputs)

    return lambda key: jax.tree.map(convert, select(initialise(key, sample))), apply


def _draw_fixed(network: Any, sample: jax.Array, marks: Sequence[bool], node: DictConfig) -> list[Any]:
    """Return the leaves that are no parameters, which must be the same whatever the seed."""

    def draw(seed: int) -> list[Any]:
        drawn = jax.tree.leaves(jax.jit(network.init)(jax.random.key(seed), sample))
        return [leaf for leaf, mark in zip(drawn, marks, strict=True) if not mark]

    first, second = draw(0), draw(1)
    for one, other in zip(first, second, strict=True):
        is_key = jnp.issubdtype(one.dtype, jax.dtypes.prng_key)
        if not is_key and not np.array_equal(one, other, equal_nan=jnp.issubdtype(one.dtype, jnp.inexact)):
            raise _refuse(
                node, "init draws at random what is no parameter; make it a parameter, or draw it by a key of its own"
            )
    return first


def check_outputs(cfg: DictConfig, dataset: Dataset, build: Build) -> None:
    """Trace a configuration's model, once for all its widths; nothing is compiled.

    Args:
        cfg: the configuration.
        dataset: its data.
        build: (configuration, data) → trainer.

    Raises:
        InputError: naming the model, where it cannot be called, does not return real outputs [N, C] of the data's C, or
            has no parameters.
    """  # noqa: DOC501
    mark = _mark(cfg, dataset)
    if mark in _traced:
        return
    with _naming(cfg):
        trainer = build(cfg, dataset)
        params = jax.eval_shape(trainer.init, jax.random.key(0))
        if not jax.tree.leaves(params):
            raise _refuse(cfg.model, "has no floating-point parameter, so there is nothing to train")
        samples = _pick_samples(dataset)
        _check_outputs(cfg.model, _evaluate_shape(trainer.apply, params, samples), len(samples), dataset.classes)
    _traced.add(mark)


def check_model(cfg: DictConfig, dataset: Dataset, build: Build) -> None:
    """Try a configuration's model on a few samples, once for all its widths.

    Args:
        cfg: the configuration.
        dataset: its data.
        build: (configuration, data) → trainer.

    Raises:
        InputError: naming the model, where it cannot be called, does not return real outputs [N, C] of the data's C,
            has complex parameters or none, does not know all tokens, draws at random, or where its samples interact.
    """
    mark = _mark(cfg, dataset)
    if mark in _checked:
        return
    check_outputs(cfg, dataset, build)
    with _naming(cfg):
        trainer = build(cfg, dataset)
        params = start_member(trainer, jnp.uint32(cfg.seed))[0]  # by the program that a run begins with
        _check_tokens(cfg.model, trainer.apply, params, dataset)
        check_function(trainer.apply, params, _pick_samples(dataset))
    _checked.add(mark)


_traced: set[tuple] = set()
_checked: set[tuple] = set()


def _mark(cfg: DictConfig, dataset: Dataset) -> tuple:
    """Return what a check depends on: all of the model but its width, and the form of the data."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    family = json.dumps({name: value for name, value in plain.items() if name != "width"}, sort_keys=True)
    inputs = dataset.probe.inputs
    return _locate(cfg.model), family, inputs.shape[1:], str(inputs.dtype), dataset.classes, cfg.precision


@contextlib.contextmanager
def _naming(cfg: DictConfig) -> Iterator[None]:
    """Have JAX compute in the configuration's precision; whatever a model says when it is traced names the model."""
    jax.config.update("jax_enable_x64", cfg.precision == "float64")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise _refuse(cfg.model, error) from error


def _locate(node: DictConfig) -> Any:
    """Return the model's class: one that was defined anew, as in a notebook, is another."""
    with contextlib.suppress(pydoc.ErrorDuringImport):
        return pydoc.locate(node._target_)
    return None


def _evaluate_shape(apply: Apply, params: Params, inputs: jax.Array) -> Any:
    return jax.eval_shape(functools.partial(call_function, apply), params, inputs)


def _check_outputs(node: DictConfig, outputs: Any, count: int, classes: int) -> None:
    if not hasattr(outputs, "shape"):
        raise _refuse(node, f"returns a {type(outputs).__name__}, not one array [N, C]")
    if outputs.shape != (count, classes):
        raise _refuse(
            node,
            f"returns outputs of shape {list(outputs.shape)} for {count} samples of {classes} classes, not "
            f"[{count}, {classes}]; the number of classes is its argument `classes`",
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise _refuse(node, f"returns {outputs.dtype}, not real numbers, for which a loss and a kernel are defined")


def _check_tokens(node: DictConfig, apply: Apply, params: Params, dataset: Dataset) -> None:
    """Refuse a model that does not know the largest of the tokens: an embedding returns NaN for these."""
    if not dataset.train.holds_tokens:
        return
    splits = (dataset.train, dataset.selection, dataset.test, dataset.probe)
    split = max(filter(len, splits), key=lambda split: split.inputs.max())
    row = split.inputs[split.inputs.reshape(len(split), -1).max(1).argmax()]
    if np.isnan(jax.jit(apply)(params, jnp.asarray(row[None], jnp.int32))).any():
        known = node.get("vocabulary")
        shown = f"model.vocabulary={known}" if known else name_choice("model", node._target_)
        raise InputError(f"{shown}: gives NaN for token {np.max(row)}; the data's tokens are 0 … {np.max(row)}")


def _pick_samples(dataset: Dataset) -> jax.Array:
    """Return a few samples that differ, of the probe first."""
    split = dataset.probe
    pool = np.concatenate([split.inputs[: 4 * SAMPLES], dataset.train.inputs[: 4 * SAMPLES]])
    _, first = np.unique(pool.reshape(len(pool), -1), axis=0, return_index=True)
    return split.convert(pool[np.sort(first)[:SAMPLES]])


def _refuse(node: DictConfig, reason: str | Exception) -> InputError:
    if isinstance(reason, Exception):
        line = " ".join(str(reason).strip().splitlines()[:1])
        plain = type(reason) is ValueError
        reason = line.replace("f(params, x)", "the network", 1) if plain else f"{type(reason).__name__}: {line}"
    return InputError(f"{name_choice('model', node._target_)}: {reason}")
