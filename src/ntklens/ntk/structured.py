"""The neural tangent kernel from the structure of a program, exact for any JAX function f(params, x) → [N, C].

Θ[(i,c),(j,c')] = ∇_θ f_c(x_i) · ∇_θ f_c'(x_j) is the sum over parameter leaves. For a leaf W entering z = a W,

    Θ_W[(i,c),(j,c')] = (a_i · a_j) (δ_ic · δ_jc'),    δ_ic = ∂f_c(x_i)/∂z,

a product of two Gram matrices, and for a bias the first factor is 1; no Jacobian of NC × P numbers exists.
`linearity.py` finds such uses in the program; one backward pass over the C outputs yields all δ. Positions and shared
weights sum over pairs of uses, or over per-sample gradients of the leaf where these are cheaper; leaves used otherwise
take their plain Jacobian from the same pass. All matrix products run at `highest` precision.

Sources: the layerwise form is that of Jacot et al. 2018 (arXiv 1806.07572) and Novak et al. 2022 (arXiv 2206.08720).
"""

import functools
import itertools
import math
import operator
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntklens.ntk.gradients import Gradients, OuterProducts, compute_gradients
from ntklens.ntk.layers import Function, call_function, name_layers
from ntklens.ntk.linearity import Analysis, analyse_program
from ntklens.ntk.program import Program, trace_program
from ntklens.ntk.signature import sign_program


def ntk(f: Function, params: Any, x1: Array, x2: Array | None = None) -> Array:
    """The neural tangent kernel, Θ[(i,c),(j,c')] = ∇_θ f_c(x1_i) · ∇_θ f_c'(x2_j). No division by N or C.

    With concrete arrays it compiles once per program and shapes, see `ntk_by_layer`. `kernel` is the same function.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x1: inputs [N, ...].
        x2: inputs [N2, ...] of the second index; x1 itself if None.

    Returns:
        Array [N, C, N2, C].

    Raises:
        ValueError: as `ntk_by_layer`.
    """
    return _dispatch(_kernel, f, params, x1, x2)


def ntk_by_layer(f: Function, params: Any, x1: Array, x2: Array | None = None) -> dict[str, Array]:
    """Each layer's share of the neural tangent kernel.

    Θ_l[(i,c),(j,c')] = Σ_{θ in layer l} ∂f_c(x1_i)/∂θ ∂f_c'(x2_j)/∂θ; their sum over l is Θ. No division by N or C.

    A layer is the path of a parameter leaf without its last component, joined by "/" and without flax's leading
    "params"; a path of one component names itself. Layers come in natural order (Dense_2 before Dense_10). What is a
    parameter: `ntklens.ntk.layers` has the rule. Of flax's collections only "params" is, of flax.nnx's Variables only
    Param; integers, booleans and random keys are held fixed.

    May be called inside jit, vmap and lax.map (which sort the dictionaries they return). With concrete arrays it
    traces f anew at every call, so f may close over state that changes, and compiles once per program and shapes.
    A function under `jax.jit` keeps what it closed over when JAX first traced it, which saves later calls the trace:
    pass `jax.jit(module.apply)` to call it often with other parameters. `layer_kernels` is the same function.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x1: inputs [N, ...].
        x2: inputs [N2, ...] of the second index; x1 itself if None.

    Returns:
        {layer: array [N, C, N2, C]}, in float32, or float64 if a parameter is.

    Raises:
        ValueError: if f does not return [N, C], if its samples interact (as under batch normalisation; checked once per
            compilation), if flax refuses the call (dropout without a key), if x2's samples are not like x1's, if params
            holds no parameter, or a complex one.
    """
    return _dispatch(_layer_kernels, f, params, x1, x2)


def ntk_trace(f: Function, params: Any, x1: Array, x2: Array | None = None) -> Array:
    """The trace of the kernel, Tr Θ = Σ_{i,c} ∇_θ f_c(x1_i) · ∇_θ f_c(x2_i), without a Gram matrix.

    For x2 = x1 it is Σ_{i,c} |∇_θ f_c(x1_i)|². No division by N or C. `layer_traces` gives each layer's share.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x1: inputs [N, ...].
        x2: inputs [N, ...], as many, of the second index; x1 itself if None.

    Returns:
        Scalar array.

    Raises:
        ValueError: as `ntk_by_layer`; if x1 and x2 differ in their number of samples.
    """
    if x2 is not None and len(x1) != len(x2):
        raise ValueError(f"x1 holds {len(x1)} samples, x2 {len(x2)}: only a square kernel has a trace")
    return _dispatch(_trace, f, params, x1, x2)


def kernel(f: Function, params: Any, x: Array, x2: Array | None = None) -> Array:
    """Return `ntk(f, params, x, x2)`."""
    return ntk(f, params, x, x2)


def layer_kernels(f: Function, params: Any, x: Array, x2: Array | None = None) -> dict[str, Array]:
    """Return `ntk_by_layer(f, params, x, x2)`."""
    return ntk_by_layer(f, params, x, x2)


def layer_traces(f: Function, params: Any, x: Array) -> dict[str, Array]:
    """Each layer's share of the trace, Tr Θ_l = Σ_{i,c} |∂f_c(x_i)/∂θ_l|², without a Gram matrix.

    For a dense layer z = a W + b it is Σ_i (|a_i|² + 1) Σ_c |∂f_c(x_i)/∂z|².

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].

    Returns:
        {layer: scalar array}, layers as in `ntk_by_layer`.

    Raises:
        ValueError: as `ntk_by_layer`.
    """
    return _dispatch(_layer_traces, f, params, x)


def check_function(f: Function, params: Any, x: Array) -> None:
    """Raise what `kernel` would raise of f, without computing a kernel.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...]; whether samples interact shows for N > 1 only.

    Raises:
        ValueError: as `ntk_by_layer`; if f does not depend on its parameters.
    """
    params, x, _ = _as_arrays(params, x, None)
    with jax.default_matmul_precision("highest"):
        problem = _take_apart(f, params, x)
        if not any(map(problem.list_acting, problem.layers)):
            raise ValueError("f(params, x) does not depend on params")
        _refuse_mixing(f, params, x, problem.task(_kernel), problem.program.list_captured())


@dataclass(frozen=True)
class _Problem:
    """A function taken apart: its program, its leaves, and which of them are the parameters of which layer."""

    program: Program
    leaves: list[Array]
    layers: dict[str, list[int]]

    @functools.cached_property
    def analysis(self) -> Analysis:
        return analyse_program(self.program, tuple(sorted(itertools.chain(*self.layers.values()))))

    @property
    def dtype(self) -> Any:
        """Of the kernel."""
        leaves = itertools.chain(*self.layers.values())
        is_double = any(self.program.avals[leaf].dtype == jnp.float64 for leaf in leaves)
        return jnp.float64 if is_double else jnp.float32

    def differentiate(self, x: Array) -> Gradients:
        return compute_gradients(self.analysis, self.leaves, x, self.dtype)

    def list_acting(self, layer: str) -> list[int]:
        """The layer's leaves that have an effect on the outputs."""
        acting = {*self.analysis.uses, *self.analysis.plain}
        return [leaf for leaf in self.layers[layer] if leaf in acting and self.leaves[leaf].size > 0]

    def task(self, compute: Callable[..., Any]) -> "_Task":
        layers = tuple((name, tuple(members)) for name, members in self.layers.items())
        return _Task(compute, sign_program(self.program), layers, self.program.replace_captured(None))


@dataclass(frozen=True)
class _Task:
    """What is compiled: a function of a program's leaves, of the arrays the program captured, and of inputs.

    Tasks are equal if they compute the same, whatever function object the program was traced from.
    """

    compute: Callable[..., Any]
    signature: Hashable
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    program: Program = field(compare=False)

    def __call__(self, leaves: list[Array], captured: list[Any], x: Array, x2: Array | None) -> Any:
        layers = {name: list(members) for name, members in self.layers}
        return self.compute(_Problem(self.program.replace_captured(captured), leaves, layers), x, x2)


def _take_apart(f: Function, params: Any, x: Array) -> _Problem:
    layers = name_layers(f, params)
    if not layers:
        raise ValueError("params holds no floating-point array, so there is nothing to differentiate")
    return _Problem(trace_program(f, params, x), jax.tree.leaves(params), layers)


def _kernel(problem: _Problem, x: Array, x2: Array | None = None) -> Array:
    return functools.reduce(operator.add, _layer_kernels(problem, x, x2).values())


def _layer_kernels(problem: _Problem, x: Array, x2: Array | None = None) -> dict[str, Array]:
    left = problem.differentiate(x)
    right = left if x2 is None else problem.differentiate(x2)
    return {layer: _layer_kernel(problem, layer, left, right) for layer in problem.layers}


def _layer_kernel(problem: _Problem, layer: str, left: Gradients, right: Gradients) -> Array:
    """Sum over the layer's leaves of their shares [N, C, N2, C]."""
    program = problem.analysis.program
    n, n2, (c,) = left.samples, right.samples, program.avals[program.output].shape
    total = jnp.zeros((n, c, n2, c), problem.dtype)
    factors: dict[int, Array] = {}  # site → Σ a·a' [N, N2] over the leaves with one position there
    for leaf in problem.list_acting(layer):
        outer = left.get_outer_products(leaf)
        outer2 = outer if right is left else right.get_outer_products(leaf)
        if outer is None or outer2 is None:
            jacobian = left.get_jacobian(leaf)
            total += _gram(jacobian, jacobian if right is left else right.get_jacobian(leaf))
        elif outer.positions == 1:
            site = problem.analysis.uses[leaf][0].site
            factors[site] = outer.a[:, 0] @ outer2.a[:, 0].T + factors.get(site, 0)
        elif _pairs_are_cheaper(outer, outer2):
            total += _sum_pairs(outer, outer2)
        else:
            jacobian = outer.sum_positions()
            total += _gram(jacobian, jacobian if right is left else outer2.sum_positions())
    for site, factor in factors.items():
        total += factor[:, None, :, None] * _gram(left.get_delta(site), right.get_delta(site))
    return total


def _gram(a: Array, b: Array) -> Array:
    """Inner products [N, C, N2, C] of a [N, C, ...] and b [N2, C, ...]."""
    n, c, n2 = *a.shape[:2], b.shape[0]
    return (a.reshape(n * c, -1) @ b.reshape(n2 * c, -1).T).reshape(n, c, n2, c)


def _pairs_are_cheaper(outer: OuterProducts, outer2: OuterProducts) -> bool:
    """Whether summing over pairs of positions takes fewer operations than forming the gradients and their Gram."""
    (n, t, k), (_, c, _, f), n2 = outer.a.shape, outer.delta.shape, outer2.a.shape[0]
    pairs = t * t * (n * n2 * k + n * c * n2 * c * (f + 1))
    gradients = (n + n2) * c * t * k * f + n * c * n2 * c * k * f
    return pairs < gradients


def _sum_pairs(outer: OuterProducts, outer2: OuterProducts) -> Array:
    """Σ_{t,t'} (a_it · a_jt') (δ_ict · δ_jc't'), one pair at a time so that memory stays that of the kernel."""
    t = outer.positions
    a, a2 = outer.a.swapaxes(0, 1), outer2.a.swapaxes(0, 1)
    delta, delta2 = jnp.moveaxis(outer.delta, 2, 0), jnp.moveaxis(outer2.delta, 2, 0)

    def add_pair(pair: Array, total: Array) -> Array:
        i, j = pair // t, pair % t
        return total + (a[i] @ a2[j].T)[:, None, :, None] * _gram(delta[i], delta2[j])

    n, c, n2 = *outer.delta.shape[:2], outer2.a.shape[0]
    return jax.lax.fori_loop(0, t * t, add_pair, jnp.zeros((n, c, n2, c), a.dtype))


def _trace(problem: _Problem, x: Array, x2: Array | None = None) -> Array:
    return functools.reduce(operator.add, _layer_traces(problem, x, x2).values())


def _layer_traces(problem: _Problem, x: Array, x2: Array | None = None) -> dict[str, Array]:
    left = problem.differentiate(x)
    right = left if x2 is None else problem.differentiate(x2)
    zero = jnp.zeros((), problem.dtype)
    return {
        layer: sum((_leaf_trace(left, right, leaf) for leaf in problem.list_acting(layer)), zero)
        for layer in problem.layers
    }


def _leaf_trace(left: Gradients, right: Gradients, leaf: int) -> Array:
    """Σ_{i,c} ∂f_c(x_i)/∂leaf · ∂f_c(x2_i)/∂leaf."""
    outer = left.get_outer_products(leaf)
    outer2 = outer if right is left else right.get_outer_products(leaf)
    if outer is None or outer2 is None:
        jacobian = left.get_jacobian(leaf)
        return (jacobian * (jacobian if right is left else right.get_jacobian(leaf))).sum()
    if outer.positions == 1:
        return (outer.a * outer2.a).sum((1, 2)) @ (outer.delta * outer2.delta).sum((1, 2, 3))
    (_, t, k), (_, c, _, f) = outer.a.shape, outer.delta.shape
    if t * (k + c * f) > c * k * f:
        return (outer.sum_positions() * outer2.sum_positions()).sum()
    a_gram = jnp.einsum("ntk,nuk->ntu", outer.a, outer2.a)
    delta_gram = jnp.einsum("nctf,ncuf->ntu", outer.delta, outer2.delta)
    return (a_gram * delta_gram).sum()


def _dispatch(compute: Callable[..., Any], f: Function, params: Any, x: Array, x2: Array | None = None) -> Any:
    """Run `compute` at the precision kernels need: inside another trace as it is, else compiled.

    f is traced at every call, for it may close over anything; what is compiled belongs to its program. The trace takes
    time that a device need not wait for: the task of the last call alike starts at once, and its result is returned if
    the trace finds the same task.
    """
    params, x, x2 = _as_arrays(params, x, x2)
    with jax.default_matmul_precision("highest"):
        key = _describe_call(compute, f, params, x, x2)
        guess = None if _is_traced(params, x, x2) else _LATEST.get(key)
        if guess is not None:
            result = _compile(guess.task)(jax.tree.leaves(params), guess.captured, x, x2)
        problem = _take_apart(f, params, x)
        captured = problem.program.list_captured()
        if _is_traced(problem.leaves, captured, x, x2):
            return compute(problem, x, x2)
        task = problem.task(compute)
        if guess is None or not guess.is_right(task, captured):
            _refuse_mixing(f, params, x, task, captured)
            result = _compile(task)(problem.leaves, captured, x, x2)
            _LATEST.put(key, _Guess(task, captured))
    if isinstance(result, dict):  # jit sorts dictionaries
        return {layer: result[layer] for layer in problem.layers}
    return result


def _is_traced(*trees: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def _as_arrays(params: Any, x: Any, x2: Any) -> tuple[Any, Array, Array | None]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"params may hold arrays and numbers only, and {name} is of type {type(leaf).__name__}")
    is_swapped = isinstance(params, Array | np.ndarray) and not isinstance(x, Array | np.ndarray)
    order = "; or are params and x swapped? The order is f, params, x" if is_swapped else ""
    for name, value in (("x", x), ("x2", x2)):
        if isinstance(value, Mapping):
            raise ValueError(
                f"{name} must be one array [N, ...], not a dictionary: pass the array that the network acts on and let "
                f"f close over the rest{order}"
            )
    params, x, x2 = jax.tree.map(jnp.asarray, (params, x, x2))
    if not isinstance(x, Array) or x.ndim == 0:
        kind = "a single number" if isinstance(x, Array) else type(x).__name__
        raise ValueError(f"x must be one array [N, ...], not {kind}{order}")
    if x2 is not None and (x2.shape[1:], x2.dtype) != (x.shape[1:], x.dtype):
        raise ValueError(f"x2 holds samples {x2.dtype}{list(x2.shape[1:])}, x others: {x.dtype}{list(x.shape[1:])}")
    return params, x, x2


KEPT = 64  # compiled programs, the latest


@functools.lru_cache(KEPT)
def _compile(task: _Task) -> Callable[..., Any]:
    return jax.jit(task.__call__)


class _Latest:
    """The latest `KEPT` values by key."""

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self.lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        return self.values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        with self.lock:
            self.values.pop(key, None)
            self.values[key] = value
            if len(self.values) > KEPT:
                del self.values[next(iter(self.values))]


@dataclass(frozen=True)
class _Guess:
    task: _Task
    captured: list[Any]

    def is_right(self, task: _Task, captured: list[Any]) -> bool:
        same = all(a is b and isinstance(a, Array) for a, b in zip(self.captured, captured, strict=False))
        return same and self.task == task


_LATEST = _Latest()  # call → guess
_CHECKED = _Latest()  # (task, shape of the inputs) found to treat samples apart


def _describe_call(compute: Callable[..., Any], f: Function, params: Any, x: Array, x2: Array | None) -> Hashable:
    """Key of a guess: object identities may return for other objects, and a wrong guess does no harm."""
    owner, function = getattr(f, "__self__", None), getattr(f, "__func__", f)
    leaves, tree = jax.tree.flatten((params, x, x2))
    return compute, id(owner), id(function), tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _refuse_mixing(f: Function, params: Any, x: Array, task: _Task, captured: list[Any]) -> None:
    """Raise a ValueError if samples interact, in outputs or gradients, at `params` and a little beside them.

    Outputs at `params` do not tell alone: a readout of zeros hides what comes before it, and a large constant what it
    is added to.
    """
    key = (task.signature, x.shape, _find_zeros(captured))
    if _CHECKED.get(key):
        return
    members = sorted(itertools.chain.from_iterable(numbers for _, numbers in task.layers))
    compare = jax.jit(functools.partial(_compare_batch_with_singles, f, members))
    for at in (params, _move_parameters(params, members)):
        for name, difference in compare(at, x).items():
            if isinstance(difference, jax.core.Tracer):  # inside another trace there is no value to look at
                return
            if difference > DIFFERENCES[name](float(jnp.finfo(task.program.avals[task.program.output].dtype).eps)):
                raise ValueError(
                    "f(params, x) mixes samples (batch normalisation, or noise that depends on the batch?): its "
                    f"{name} differ by {float(difference):.2g} of their size from those for each sample alone, so a "
                    "kernel between samples is undefined"
                )
    _CHECKED.put(key, True)


# Relative differences between a batch and its samples that rounding may make, from the machine epsilon; in gradients
# it may also switch a unit that is at a kink.
DIFFERENCES: dict[str, Callable[[float], float]] = {
    "outputs": math.sqrt,
    "gradients": lambda epsilon: max(0.02, 2 * math.sqrt(epsilon)),
}
LOOKED_AT = 4096  # elements of a captured array
SHIFT = 0.1  # by which parameters are moved, of their size


def _find_zeros(captured: list[Any]) -> tuple[bool, ...]:
    """Whether each small captured array is zero: a factor of zero hides what it multiplies."""
    return tuple(
        jnp.issubdtype(value.dtype, jnp.number) and value.size <= LOOKED_AT and not np.any(np.asarray(value))
        for value in captured
    )


def _move_parameters(params: Any, members: Sequence[int]) -> Any:
    """Return parameters moved by a tenth of their size, or by a tenth where they are zero; always alike.

    Args:
        params: pytree of arrays.
        members: numbers of the leaves to move.
    """
    leaves, tree = jax.tree.flatten(params)
    generator = np.random.default_rng(0)
    for number in members:
        leaf = leaves[number]
        values = np.asarray(leaf, np.float64)
        size = float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
        leaves[number] = jnp.asarray(
            values + SHIFT * (size or 1.0) * generator.standard_normal(values.shape), leaf.dtype
        )
    return jax.tree.unflatten(tree, leaves)


def _compare_batch_with_singles(f: Function, members: Sequence[int], params: Any, x: Array) -> dict[str, Array]:
    """Relative differences between f of a batch and of its samples alone, where both are finite.

    Returns:
        outputs: the largest difference by the largest output; gradients: of a random combination of all outputs, the
        norm of the difference by the norm.
    """
    leaves, tree = jax.tree.flatten(params)

    def insert(moving: list[Array]) -> Any:
        given = dict(zip(members, moving, strict=True))
        return jax.tree.unflatten(tree, [given.get(number, leaf) for number, leaf in enumerate(leaves)])

    def apply_batch(moving: list[Array]) -> Array:
        return call_function(f, insert(moving), x)

    def apply_singles(moving: list[Array]) -> Array:
        params = insert(moving)
        return jax.vmap(lambda sample: call_function(f, params, sample[None])[0])(x)

    moving = [leaves[number] for number in members]
    (batch, pull_batch), (singles, pull_singles) = jax.vjp(apply_batch, moving), jax.vjp(apply_singles, moving)
    if batch.shape != singles.shape:
        raise ValueError(f"f(params, x) must return one array [N, C]; for {x.shape[0]} samples it gave {batch.shape}")
    weights = jnp.asarray(np.random.default_rng(0).standard_normal(batch.shape), batch.dtype)
    (together,), (alone,) = pull_batch(weights), pull_singles(weights)
    batch, singles = _zero_infinite(batch, singles)
    pairs = [_zero_infinite(a, b) for a, b in zip(together, alone, strict=True)]
    together, alone = [a for a, _ in pairs], [b for _, b in pairs]
    difference = [a.astype(float) - b.astype(float) for a, b in pairs]
    largest = [jnp.maximum(_norm([a]), _norm([b])) for a, b in zip(together, alone, strict=True)]
    return {
        "outputs": _divide(jnp.abs(batch - singles).max(), jnp.abs(singles).max()),
        "gradients": _divide(_norm(difference), _norm(largest)),
    }


def _zero_infinite(a: Array, b: Array) -> tuple[Array, Array]:
    """Both arrays with zeros where one of them is not finite."""
    both = jnp.isfinite(a) & jnp.isfinite(b)
    return jnp.where(both, a, 0), jnp.where(both, b, 0)


def _norm(arrays: Sequence[Array]) -> Array:
    return jnp.sqrt(sum((jnp.square(array.astype(float)).sum() for array in arrays), jnp.zeros(())))


def _divide(difference: Array, scale: Array) -> Array:
    """The quotient; nothing differs by nothing."""
    return jnp.where(difference == 0, 0.0, difference / scale)
