"""Seeds as an array axis: one compiled program trains many members of one configuration."""

import functools
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntklens.data import Split
from ntklens.ntk.gram import uses_cpu
from ntklens.training.losses import Loss
from ntklens.training.products import differentiate_by_products

Params = Any
Precondition = Callable[[optax.OptState], Params]
# Of matrix products: an accelerator's own choice, such as TensorFloat-32, would make trajectories others than a CPU's.
PRECISION = "highest"
PIECE_SECONDS = 2.0  # a compiled call ends after about this long, so that signals and progress act
ALONE_BYTES = 1 << 20  # on a CPU, members whose parameters exceed this are faster alone
FILTER_RANK = 4  # axes of a filter over images; that of a dense layer has 2, of attention 3


class State(NamedTuple):
    """What a member carries from step to step; every leaf has a leading axis of members, but `step`."""

    params: Params
    opt_state: optax.OptState
    order_key: jax.Array  # key of the order of mini-batches
    learning_rate: jax.Array
    step: int  # updates done, by every member


@dataclass(frozen=True)
class Trainer:
    """Everything about training but its state.

    Attributes:
      init: key → parameters.
      apply: (parameters, inputs [B, …]) → logits [B, C].
      loss: per-sample loss of logits [B, C] and labels [B].
      optimizer: learning rate → optax transformation. The rate is traced: configurations that differ in it alone share
        a program.
      batch_size: samples per update; None: all of them.
      twin: as `apply`, of what trains beside the network, with parameters of its own in the same tree; None: nothing.
      rates: the rate of each leaf of the parameters, of one `learning_rate`; None: one for all.
      precondition: state of the optimizer → what Adam multiplies its momentum by, leaf by leaf; None: it does no such.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    loss: Loss
    optimizer: Callable[[Any], optax.GradientTransformation]
    batch_size: int | None = None
    twin: Callable[[Params, jax.Array], jax.Array] | None = None
    rates: tuple[float, ...] | None = None
    precondition: Precondition | None = None

    @property
    def step_scale(self) -> float:
        """By what `learning_rate` is multiplied, where that is one number for all leaves; else 1."""
        return self.rates[0] if self.rates and len(set(self.rates)) == 1 else 1.0

    def count_steps_per_epoch(self, train_size: int) -> int:
        """Return updates per epoch: one for the full batch, else ⌊D / batch_size⌋ (an incomplete batch is left out)."""
        return 1 if self.batch_size is None else train_size // self.batch_size


def initialise(trainer: Trainer, seeds: Sequence[int], learning_rate: float) -> State:
    """Return the state before the first update, one member per seed.

    Each member is drawn by the same one-seed program, so its parameters do not depend, to the bit, on its neighbours.

    Args:
      trainer: what trains.
      seeds: the members' seeds, integers in [0, 2^32).
      learning_rate: of every member.

    Returns:
      A state whose leaves have a leading axis of len(seeds).
    """
    members = [start_member(trainer, jnp.uint32(seed)) for seed in seeds]
    params, opt_state, order_key = _stack(members)
    rates = jnp.full(len(seeds), learning_rate, float)
    params, opt_state, order_key, rates = shard_members((params, opt_state, order_key, rates))
    return State(params, opt_state, order_key, rates, 0)


@jax.jit
def _stack(members: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def shard_members(stacked: Any) -> Any:
    """Spread members over as many local devices as divide their number; programs of them then run on these together.

    Args:
      stacked: a tree whose leaves have a leading axis of members; without leaves, as an optimizer's state may be, too.

    Returns:
      The same tree.
    """
    devices, leaves = jax.local_devices(), jax.tree.leaves(stacked)
    count = max((n for n in range(1, len(devices) + 1) if leaves and len(leaves[0]) % n == 0), default=1)
    if count == 1:
        return stacked
    mesh = jax.sharding.Mesh(np.array(devices[:count]), ("member",))
    return jax.device_put(stacked, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member")))


@partial(jax.jit, static_argnums=0)
def start_member(trainer: Trainer, seed: jax.Array) -> tuple[Params, optax.OptState, jax.Array]:
    """Return a member's parameters, its optimizer's state and the key of the order of its mini-batches."""
    init_key, order_key = jax.random.split(jax.random.key(seed))
    params = trainer.init(init_key)
    return params, trainer.optimizer(0.0).init(params), order_key


def trains_faster_alone(params: Params) -> bool:
    """Return whether members of this size are faster one after another than as one batched product.

    A rule on shapes and not a stopwatch, so that a rerun takes the same path and is equal bit for bit. Measured in
    benchmarks/members.py: on a CPU batched products win for small members and lose for large ones; on a GPU they win.

    Args:
      params: one member's parameters, or their shapes.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return uses_cpu() and (size > ALONE_BYTES or _has_filters(params))


def _has_filters(params: Params) -> bool:
    """Whether members have filters over images: batched over these, convolutions are grouped, and slow on a CPU."""
    return any(leaf.ndim >= FILTER_RANK for leaf in jax.tree.leaves(params))


def map_members(function: Callable) -> Callable:
    """Return `function` of one member lifted to stacked members, whose first argument are the parameters.

    On a CPU members with filters go one after another. A single member is not batched: batched products of one matrix
    are a third slower on a CPU.
    """

    def lifted(params: Params, *others: Any) -> Any:
        stacked = (params, *others)
        if len(jax.tree.leaves(params)[0]) == 1:
            return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], stacked)))
        if uses_cpu() and _has_filters(
            jax.eval_shape(lambda leaves: jax.tree.map(lambda leaf: leaf[0], leaves), params)
        ):
            return jax.lax.map(lambda member: function(*member), stacked)
        return jax.vmap(function)(*stacked)

    return lifted


@partial(jax.jit, static_argnames="trainer", donate_argnames=("params", "opt_state"))
def advance(
    params: Params,
    opt_state: optax.OptState,
    order_key: jax.Array,
    learning_rate: jax.Array,
    step: jax.Array,
    count: jax.Array,
    inputs: jax.Array,
    labels: jax.Array,
    *,
    trainer: Trainer,
) -> tuple[Params, optax.OptState]:
    """Do `count` updates of every member in one compiled loop.

    θ_{t+1} = θ_t + optimizer(∇ (1/B) Σ_{i ∈ batch} loss(f(x_i; θ_t), y_i)). `count` is traced: one program serves every
    distance between records. `params` and `opt_state` are donated.

    Args:
      params: stacked parameters.
      opt_state: stacked optimiser states.
      order_key: keys of the orders of mini-batches, shape [members].
      learning_rate: shape [members].
      step: updates done so far.
      count: updates to do.
      inputs: training inputs, shape [D, …].
      labels: training labels, shape [D].
      trainer: what trains.

    Returns:
      The parameters and optimiser states after the updates.
    """
    size, per_epoch = len(inputs), trainer.count_steps_per_epoch(len(inputs))
    batch_size = trainer.batch_size or size

    functions = [differentiate_by_products(one) for one in (trainer.apply, trainer.twin) if one is not None]

    def compute_loss(params: Params, inputs: jax.Array, labels: jax.Array) -> jax.Array:  # twins share no parameter
        losses = [jnp.mean(trainer.loss(function(params, inputs), labels)) for function in functions]
        return functools.reduce(operator.add, losses)

    def update(
        params: Params, opt_state: optax.OptState, rate: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> tuple:
        gradient = jax.grad(compute_loss)(params, inputs, labels)
        updates, opt_state = trainer.optimizer(rate).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def run_full_batch(params: Params, opt_state: optax.OptState, _key: jax.Array, rate: jax.Array) -> tuple:
        return jax.lax.fori_loop(
            0, count, lambda _, carry: update(carry[0], carry[1], rate, inputs, labels), (params, opt_state)
        )

    def run_mini_batches(params: Params, opt_state: optax.OptState, key: jax.Array, rate: jax.Array) -> tuple:
        def shuffle(epoch: jax.Array) -> jax.Array:
            return jax.random.permutation(jax.random.fold_in(key, epoch), size)

        def body(index: jax.Array, carry: tuple) -> tuple:
            params, opt_state, order = carry
            now = step + index
            order = jax.lax.cond(now % per_epoch == 0, lambda: shuffle(now // per_epoch), lambda: order)
            start = (now % per_epoch) * batch_size
            batch = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
            return *update(params, opt_state, rate, inputs[batch], labels[batch]), order

        return jax.lax.fori_loop(0, count, body, (params, opt_state, shuffle(step // per_epoch)))[:2]

    member = run_full_batch if trainer.batch_size is None else run_mini_batches
    with jax.default_matmul_precision(PRECISION):
        return map_members(member)(params, opt_state, order_key, learning_rate)


def run_states(
    trainer: Trainer,
    state: State,
    train: Split,
    steps: np.ndarray,
    on_progress: Callable[[State, int], None] = lambda _state, _count: None,
) -> Iterator[State]:
    """Train, and yield the state at each of `steps`.

    The parameters of a yielded state are overwritten by the next: whoever keeps them copies them.

    Args:
      trainer: what trains.
      state: where to start.
      train: the training samples.
      steps: increasing numbers of updates, shape [K], not before `state.step`.
      on_progress: called with the state, and the number of updates just done.

    Yields:
      The state after each number of updates in `steps`.
    """
    inputs, labels = train.convert(train.inputs), jnp.asarray(train.labels)
    piece = 1
    for target in steps:
        while state.step < target:
            count = min(piece, int(target) - state.step)
            started = time.perf_counter()
            params, opt_state = jax.block_until_ready(
                advance(
                    state.params,
                    state.opt_state,
                    state.order_key,
                    state.learning_rate,
                    jnp.int32(state.step),
                    jnp.int32(count),
                    inputs,
                    labels,
                    trainer=trainer,
                )
            )
            seconds = time.perf_counter() - started
            # At most twice as many updates as the last call: the first one includes compilation.
            piece = max(1, min(2 * count, int(PIECE_SECONDS * count / seconds))) if count == piece else piece
            state = state._replace(params=params, opt_state=opt_state, step=state.step + count)
            on_progress(state, count)
        on_progress(state, 0)
        yield state
