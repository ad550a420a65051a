"""The neural tangent kernel from the structure of a program, exact for any JAX function f(params, x) → [N, C].

Θ[(i,c),(j,c')] = ∇_θ f_c(x_i) · ∇_θ f_c'(x_j) is the sum over parameter leaves. For a leaf W entering z = a W,

    Θ_W[(i,c),(j,c')] = (a_i · a_j) (δ_ic · δ_jc'),    δ_ic = ∂f_c(x_i)/∂z,

a product of two Gram matrices, and for a bias the first factor is 1; no Jacobian of NC × P numbers exists.
`linearity.py` finds such uses in the program; one backward pass over the C outputs yields all δ. The gradient of a leaf
with positions (of a convolution, a sequence, a leaf used twice) is a sum Σ_t a_t ⊗ δ_t; `plan.py` lists the ways from
there to Θ_W and chooses one by counted operations and bytes, `shares.py` follows it. Leaves used otherwise take their
plain Jacobian from the same pass. All matrix products run at `highest` precision.

Sources: the layerwise form is that of Jacot et al. 2018 (arXiv 1806.07572) and Novak et al. 2022 (arXiv 2206.08720).
"""

import functools
import itertools
import math
import operator
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntklens.ntk.gradients import Passes, find_convolutions, prepare_passes
from ntklens.ntk.heads import find_heads
from ntklens.ntk.layers import Function, call_function, name_layers
from ntklens.ntk.linearity import Analysis, analyse_program
from ntklens.ntk.plan import KernelPlan, Sizes, plan_kernel
from ntklens.ntk.program import Program, trace_program
from ntklens.ntk.shares import compute_kernels, compute_projected_traces, compute_traces, compute_weighted_trace
from ntklens.ntk.signature import sign_program

Inputs: TypeAlias = Any  # an array [N, ...], or a tree of arrays that have one N


class KernelError(RuntimeError):
    """A kernel is not what it should be."""


def ntk(f: Function, params: Any, x1: Inputs, x2: Inputs | None = None) -> Array:
    """The neural tangent kernel, Θ[(i,c),(j,c')] = ∇_θ f_c(x1_i) · ∇_θ f_c'(x2_j). No division by N or C.

    With concrete arrays it compiles once per program and shapes, see `ntk_by_layer`. `kernel` is the same function.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x1: inputs [N, ...], an array or a pytree of arrays with one N (no list).
        x2: inputs [N2, ...] of the second index; x1 itself if None.

    Returns:
        Array [N, C, N2, C].

    Raises:
        ValueError: as `ntk_by_layer`.
    """
    return _dispatch(_kernel, f, params, x1, x2)


def ntk_by_layer(f: Function, params: Any, x1: Inputs, x2: Inputs | None = None) -> dict[str, Array]:
    """Each layer's share of the neural tangent kernel.

    Θ_ℓ[(i,c),(j,c')] = Σ_{θ in layer ℓ} ∂f_c(x1_i)/∂θ ∂f_c'(x2_j)/∂θ; their sum over ℓ is Θ. No division by N or C.

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
        Layer → array [N, C, N2, C], in float32, or float64 if a parameter is.

    Raises:
        ValueError: if f does not return [N, C], if its samples interact (as under batch normalisation; checked once per
            compilation), if flax refuses the call (dropout without a key), if x2's samples are not like x1's, if params
            holds no parameter, or a complex one.
    """
    return _dispatch(_layer_kernels, f, params, x1, x2)


def ntk_trace(f: Function, params: Any, x1: Inputs, x2: Inputs | None = None) -> Array:
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
    if x2 is not None:
        first, second = (len(jax.tree.leaves(inputs)[0]) for inputs in (x1, x2))
        if first != second:
            raise ValueError(f"x1 holds {first} samples, x2 {second}: only a square kernel has a trace")
    return _dispatch(_trace, f, params, x1, x2)


def estimate_trace(f: Function, params: Any, x: Inputs, key: Array, probes: int = 16) -> tuple[Array, Array]:
    """An unbiased estimate of Tr Θ with its standard error, for outputs so many that the trace itself takes too long.

    Tr Θ = E Σ_i |∂(s_i · f(x_i))/∂θ|² over independent random signs s_i ∈ {−1, 1}^C. Each of the M probes takes one
    backward pass per sample where the trace takes C. Source: Hutchinson 1990.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        key: random key.
        probes: how many draws M of all signs, 2 at least.

    Returns:
        The mean over the probes, and their standard deviation divided by √M.

    Raises:
        ValueError: as `ntk_by_layer`; if there are fewer than 2 probes.
    """
    traces, error = estimate_layer_traces(f, params, x, key, probes)
    return functools.reduce(operator.add, traces.values()), error


def estimate_layer_traces(
    f: Function, params: Any, x: Inputs, key: Array, probes: int = 16
) -> tuple[dict[str, Array], Array]:
    """The same for each layer's share of the trace; the standard error is that of their sum, Tr Θ.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        key: random key.
        probes: how many draws M of all signs, 2 at least.

    Returns:
        {layer: scalar array}, layers as in `ntk_by_layer`, and a scalar array.

    Raises:
        ValueError: as `ntk_by_layer`; if there are fewer than 2 probes.
    """
    if probes < 2:
        raise ValueError(f"probes={probes}: a standard error takes 2 at least")
    f, params, x, _ = _as_arrays(f, params, x, None)
    with jax.default_matmul_precision("highest"):
        problem = _take_apart(f, params, x)
        output = problem.program.avals[problem.program.output]
        signs = jax.random.rademacher(key, (probes, len(x), *output.shape), output.dtype)
        captured = problem.program.list_captured()
        if _is_traced(problem.leaves, captured, x, signs):
            values = _projected_traces(problem, x, signs)
        else:
            task = problem.task(_projected_traces)
            _refuse_mixing(f, params, x, task, captured)
            values = _compile(task)(problem.leaves, captured, x, signs)
    error = functools.reduce(operator.add, values.values()).std(ddof=1) / math.sqrt(probes)
    return {layer: values[layer].mean() for layer in problem.layers}, error


def kernel(f: Function, params: Any, x: Inputs, x2: Inputs | None = None) -> Array:
    """Return `ntk(f, params, x, x2)`."""
    return ntk(f, params, x, x2)


def layer_kernels(f: Function, params: Any, x: Inputs, x2: Inputs | None = None) -> dict[str, Array]:
    """Return `ntk_by_layer(f, params, x, x2)`."""
    return ntk_by_layer(f, params, x, x2)


def layer_traces(f: Function, params: Any, x: Inputs) -> dict[str, Array]:
    """Each layer's share of the trace, Tr Θ_ℓ = Σ_{i,c} |∂f_c(x_i)/∂θ_ℓ|², without a Gram matrix.

    For a dense layer z = a W + b it is Σ_i (|a_i|² + 1) Σ_c |∂f_c(x_i)/∂z|².

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].

    Returns:
        Layer → scalar array, layers as in `ntk_by_layer`.

    Raises:
        ValueError: as `ntk_by_layer`.
    """
    return _dispatch(_layer_traces, f, params, x)


def plan_ntk(f: Function, params: Any, x1: Any, x2: Any = None) -> KernelPlan:
    """How `ntk(f, params, x1, x2)` is computed: per leaf the path, its operations and bytes; nothing is compiled.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters, or of their shapes (`jax.ShapeDtypeStruct`).
        x1: inputs [N, ...], or their shape.
        x2: inputs [N2, ...] of the second index, or their shape; x1 itself if None.

    Returns:
        The plan.

    Raises:
        ValueError: as `ntk_by_layer`, but for samples that interact.
    """
    _refuse_order(f, params, x1, x2)
    plans = []
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = {number: jax.tree_util.keystr(path, simple=True, separator="/") for number, path in enumerate(paths)}

    def trace(params: Any, x1: Array, x2: Array | None) -> Array:
        function, params, x1, x2 = _as_arrays(f, params, x1, x2)
        problem = _take_apart(function, params, x1)
        analysis = problem.analysis
        heads = find_heads(analysis)
        convolved = [equation.outputs[0] for equation in find_convolutions(analysis, heads)]
        sizes = problem.measure(len(x1), None if x2 is None else len(x2))
        plans.append(plan_kernel(analysis, heads, convolved, problem.list_members(), names, sizes))
        return jnp.zeros(())

    jax.eval_shape(trace, params, x1, x2)
    return plans[0]


def explain_ntk(f: Function, params: Any, x1: Any, x2: Any = None) -> KernelPlan:
    """Print how `ntk(f, params, x1, x2)` is computed, leaf by leaf with operations and bytes, and their sum.

    It is `plan_ntk`, printed. Nothing is compiled.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters, or of their shapes (`jax.ShapeDtypeStruct`).
        x1: inputs [N, ...], or their shape.
        x2: inputs [N2, ...] of the second index, or their shape; x1 itself if None.

    Returns:
        The plan.

    Raises:
        ValueError: as `ntk_by_layer`, but for samples that interact.
    """
    plan = plan_ntk(f, params, x1, x2)
    print(plan)
    return plan


def check_row(f: Function, params: Any, x: Inputs, shares: Mapping[str, Array], row: tuple[int, int]) -> None:
    """Compare a row of Θ with what follows from it by a Jacobian–vector product, layer by layer.

    The row (i, c) of Θ_ℓ is J_ℓ(x) v_ℓ with v_ℓ = ∂f_c(x_i)/∂θ_ℓ: one gradient and one forward derivative, which know
    nothing of the program's structure. A function without a forward derivative (`jax.custom_vjp`) is not checked.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        shares: `ntk_by_layer(f, params, x)`.
        row: (i, c).

    Raises:
        KernelError: if they differ by more than rounding does; it names the leaf.
    """
    f, params, x, _ = _as_arrays(f, params, x, None)
    layers = name_layers(f, params)
    try:
        rows = _compute_rows(f, params, x, tuple(map(tuple, layers.values())), row)
    except TypeError:
        return
    precision = jnp.finfo(jax.eval_shape(functools.partial(call_function, f), params, x).dtype)
    scale = float(np.abs(np.sum([np.asarray(one, np.float64) for one in rows], axis=0)).max())
    for (layer, members), expected in zip(layers.items(), rows, strict=True):
        difference = float(np.abs(np.asarray(shares[layer][row], np.float64) - np.asarray(expected, np.float64)).max())
        if difference > math.sqrt(float(precision.eps)) * scale:  # NaN is a diverged network's
            paths = jax.tree_util.tree_leaves_with_path(params)
            names = " or ".join(jax.tree_util.keystr(paths[k][0], simple=True, separator="/") for k in members)
            raise KernelError(
                f"the kernel of {names} differs from a Jacobian-vector product by {difference / scale:.2g} "
                "of its size: a fault of ntklens; ntk.engine=neural_tangents computes the kernel in another way"
            )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _compute_rows(
    f: Function, params: Any, x: Array, layers: tuple[tuple[int, ...], ...], row: tuple[Array, Array]
) -> list[Array]:
    """The row (i, c) of each layer's share, [N, C]."""
    leaves, tree = jax.tree.flatten(params)
    members = sorted(itertools.chain.from_iterable(layers))

    def apply(moving: dict[int, Array], x: Array) -> Array:
        merged = [moving.get(number, leaf) for number, leaf in enumerate(leaves)]
        return call_function(f, jax.tree.unflatten(tree, merged), x)

    with jax.default_matmul_precision("highest"):
        moving = {number: leaves[number] for number in members}
        sample = jax.lax.dynamic_slice_in_dim(x, row[0], 1)
        gradient = jax.grad(lambda moving: apply(moving, sample)[0, row[1]])(moving)
        _, push = jax.linearize(lambda moving: apply(moving, x), moving)

        def follow(layer: Array) -> Array:
            chosen = {
                number: jnp.where(layer == k, gradient[number], 0) for k, group in enumerate(layers) for number in group
            }
            return push(chosen)

        return list(jax.lax.map(follow, jnp.arange(len(layers))))


def weighted_trace(f: Function, params: Any, x: Inputs, weights: Any) -> Array:
    """The trace of the kernel with a weight for each single parameter, Σ_θ P_θ Σ_{i,c} (∂f_c(x_i)/∂θ)².

    For a dense layer z = a W it is Σ_{i,c} (a_i²)ᵀ P (δ_ic²), δ_ic = ∂f_c(x_i)/∂z, squares element by element: no
    Jacobian and no Gram matrix. With the P of an optimizer that preconditions, it is the trace of the kernel that
    trains.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters.
        x: inputs [N, ...].
        weights: P, arrays of the shapes of the leaves, in a tree like `params`.

    Returns:
        Scalar array.

    Raises:
        ValueError: if f does not return [N, C], or params holds no parameter.
    """
    f, params, x, _ = _as_arrays(f, params, x, None)
    with jax.default_matmul_precision("highest"):
        problem = _take_apart(f, params, x)
        found = [leaf.astype(problem.dtype) for leaf in jax.tree.leaves(weights)]
        return compute_weighted_trace(problem.prepare(), problem.list_members(), found, x)


def check_function(f: Function, params: Any, x: Inputs) -> None:
    """Raise what `kernel` would raise of f, without computing a kernel.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...]; whether samples interact shows for N > 1 only.

    Raises:
        ValueError: as `ntk_by_layer`; if f does not depend on its parameters.
    """
    f, params, x, _ = _as_arrays(f, params, x, None)
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

    def measure(self, samples: int, samples2: int | None) -> Sizes:
        """The sizes of a kernel of so many samples."""
        (outputs,) = self.program.avals[self.program.output].shape
        return Sizes(samples, samples2, outputs, jnp.dtype(self.dtype).itemsize)

    @property
    def dtype(self) -> Any:
        """Of the kernel."""
        leaves = itertools.chain(*self.layers.values())
        is_double = any(self.program.avals[leaf].dtype == jnp.float64 for leaf in leaves)
        return jnp.float64 if is_double else jnp.float32

    def prepare(self, *, with_heads: bool = True) -> Passes:
        heads = find_heads(self.analysis) if with_heads else {}
        return prepare_passes(self.analysis, self.leaves, self.dtype, heads)

    def list_members(self) -> dict[str, list[int]]:
        """Layers → their leaves that have an effect on the outputs."""
        return {layer: self.list_acting(layer) for layer in self.layers}

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
    (kernel,) = compute_kernels(problem.prepare(), [problem.list_members()], x, x2)
    return kernel


def _layer_kernels(problem: _Problem, x: Array, x2: Array | None = None) -> dict[str, Array]:
    groups = [{layer: members} for layer, members in problem.list_members().items()]
    return dict(zip(problem.layers, compute_kernels(problem.prepare(), groups, x, x2), strict=True))


def _trace(problem: _Problem, x: Array, x2: Array | None = None) -> Array:
    return functools.reduce(operator.add, _layer_traces(problem, x, x2).values())


def _layer_traces(problem: _Problem, x: Array, x2: Array | None = None) -> dict[str, Array]:
    return compute_traces(problem.prepare(), problem.list_members(), x, x2)


def _projected_traces(problem: _Problem, x: Array, signs: Array | None) -> dict[str, Array]:
    """Each layer's estimates [M] of its trace by random signs [M, N, C]."""
    passes, members = problem.prepare(with_heads=False), problem.list_members()
    return jax.lax.map(lambda one: compute_projected_traces(passes, members, x, one), signs)


def _dispatch(compute: Callable[..., Any], f: Function, params: Any, x: Array, x2: Array | None = None) -> Any:
    """Run `compute` at the precision kernels need: inside another trace as it is, else compiled.

    f is traced at every call, for it may close over anything; what is compiled belongs to its program. The trace takes
    time that a device need not wait for: the task of the last call alike starts at once, and its result is returned if
    the trace finds the same task.

    Returns:
        What `compute` returns.
    """
    f, params, x, x2 = _as_arrays(f, params, x, x2)
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
            _refuse_mixing(f, params, x if x2 is None or len(x) > 1 else x2, task, captured)  # one has none to mix with
            result = _compile(task)(problem.leaves, captured, x, x2)
            _LATEST.put(key, _Guess(task, captured))
    if isinstance(result, dict):  # jit sorts dictionaries
        return {layer: result[layer] for layer in problem.layers}
    return result


def _is_traced(*trees: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def _as_arrays(f: Function, params: Any, x: Any, x2: Any) -> tuple[Function, Any, Array, Array | None]:
    """Return the arguments of a kernel as arrays; inputs of several arrays as numbers of samples, which f looks up."""
    _refuse_order(f, params, x, x2)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"params may hold arrays and numbers only, and {name} is of type {type(leaf).__name__}")
    is_swapped = isinstance(params, Array | np.ndarray) and not isinstance(x, Array | np.ndarray)
    order = "; or are params and x swapped? The order is f, params, x" if is_swapped else ""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves((params, x, x2))):
        raise ValueError("params and x must be arrays, not shapes; ntklens.explain_ntk takes shapes")
    params, x, x2 = jax.tree.map(jnp.asarray, (params, x, x2))
    if not isinstance(x, Array | list) and jax.tree.leaves(x):
        sizes = [_count_samples(name, value, order) for name, value in (("x", x), ("x2", x2)) if value is not None]
        if x2 is not None and _describe_samples(x2) != _describe_samples(x):
            raise ValueError(f"x2 holds samples {_describe_samples(x2)}, x others: {_describe_samples(x)}")
        table = x if x2 is None else jax.tree.map(lambda *parts: jnp.concatenate(parts), x, x2)
        x2 = None if x2 is None else jnp.arange(sizes[0], sum(sizes))
        return _look_up(f, table, order), params, jnp.arange(sizes[0]), x2
    if not isinstance(x, Array) or x.ndim == 0:
        kind = "a single number" if isinstance(x, Array) else type(x).__name__
        raise ValueError(f"x must be one array [N, ...], not {kind}{order}")
    for name, value in (("x", x), ("x2", x2)):
        if value is not None and value.shape[:1] == (0,):
            raise ValueError(f"{name} holds no samples: it is {list(value.shape)}")
    if x2 is not None and (x2.shape[1:], x2.dtype) != (x.shape[1:], x.dtype):
        raise ValueError(f"x2 holds samples {x2.dtype}{list(x2.shape[1:])}, x others: {x.dtype}{list(x.shape[1:])}")
    return f, params, x, x2


def _refuse_order(f: Any, params: Any, x: Any, x2: Any) -> None:
    """Raise a ValueError that names the order where f is no function, or another argument is one."""
    for name, value in (("params", params), ("x", x), ("x2", x2)):
        if _is_function(value):
            raise ValueError(f"{name} is of type {type(value).__name__}, which is called; the order is f, params, x")
    if not callable(f) and not hasattr(f, "apply"):
        raise ValueError(
            f"f is of type {type(f).__name__}, not a function f(params, x) or a flax.linen.Module; "
            "the order is f, params, x"
        )


def _is_function(value: Any) -> bool:
    """Whether a value is a function or a module that holds no arrays; modules that do may be parameters."""
    return callable(value) and not hasattr(value, "shape") and all(leaf is value for leaf in jax.tree.leaves(value))


def _look_up(f: Function, table: Any, order: str) -> Function:
    """Return f as a function of samples' numbers in a pytree of arrays [N, ...]."""

    def function(params: Any, numbers: Array) -> Array:
        try:
            return call_function(f, params, jax.tree.map(lambda leaf: leaf[numbers], table))
        except Exception as error:
            if not order:
                raise
            raise ValueError(f"{error}{order}") from error

    function.__wrapped__ = f  # type: ignore[attr-defined]  # what the parameters of a Module are stays known
    return function


def _count_samples(name: str, inputs: Any, order: str) -> int:
    """The N of a pytree of inputs [N, ...]."""
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(inputs)
    }
    first = next(iter(shapes))
    for leaf, shape in shapes.items():
        if not shape or shape[:1] != shapes[first][:1]:
            one, other = (f"{part} {list(shapes[part])}" for part in (first, leaf))
            raise ValueError(
                f"{name} must be one array [N, ...], or a tree of arrays with one N, not of {one} and {other}{order}"
            )
    if shapes[first][0] == 0:
        raise ValueError(f"{name} holds no samples: {first} is {list(shapes[first])}")
    return int(shapes[first][0])


def _describe_samples(inputs: Any) -> str:
    """The tree of a sample, its dtypes and shapes."""
    leaves, tree = jax.tree.flatten(inputs)
    return f"{tree} of {', '.join(f'{leaf.dtype}{list(leaf.shape[1:])}' for leaf in leaves)}"


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

    Raises:
        ValueError: naming how much they differ.
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
                found = (
                    f"differ by {float(difference):.2g} of their size from those for each sample alone"
                    if math.isfinite(difference)
                    else "are finite for the batch and not for each sample alone"
                )
                raise ValueError(
                    "f(params, x) mixes samples (batch normalisation, or noise that depends on the batch?): its "
                    f"{name} {found}, so a kernel between samples is undefined"
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
        outputs: the largest difference by the largest output, infinite where an output of the batch is finite and that
        of its sample alone is not; gradients: of a random combination of all outputs, the norm of the difference by the
        norm.

    Raises:
        ValueError: if f of the batch and of its samples have other shapes.
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
    lost = (jnp.isfinite(batch) & ~jnp.isfinite(singles)).any()
    batch, singles = _zero_infinite(batch, singles)
    pairs = [_zero_infinite(a, b) for a, b in zip(together, alone, strict=True)]
    together, alone = [a for a, _ in pairs], [b for _, b in pairs]
    difference = [a.astype(float) - b.astype(float) for a, b in pairs]
    largest = [jnp.maximum(_norm([a]), _norm([b])) for a, b in zip(together, alone, strict=True)]
    return {
        "outputs": jnp.where(lost, jnp.inf, _divide(jnp.abs(batch - singles).max(), jnp.abs(singles).max())),
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
