"""Memory and operations of a program, counted from its equations before anything is compiled.

The equations are those that JAX traces of the very function that will run, so a count follows whatever the function
does. Of each equation: does its result need a buffer, or is it computed inside the loop that reads it, as XLA fuses it?
Buffers live from the equation that fills them to the last one that reads them, in the order in which XLA runs them:
for a CPU breadth first, so that parts that do not depend on each other are held together. The largest sum is the peak.
Copies of operands in another layout are counted where the rule is plain.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ntklens._compat import count_scanned
from ntklens.ntk.gram import uses_cpu

# Results that are another view of the operand.
ALIASES = {
    *("reshape", "squeeze", "expand_dims", "stop_gradient", "copy", "copy_p", "name"),
    *("optimization_barrier", "bitcast_convert_type", "random_wrap", "random_unwrap"),
    *("sharding_constraint", "pvary"),
}
# Results that XLA computes where they are read, element by element.
MOVES = {
    *("broadcast_in_dim", "transpose", "slice", "dynamic_slice", "rev", "pad", "gather"),
    *("iota", "split"),
}
# Of those, results that are made of a part of what they read.
PARTS = {"slice", "dynamic_slice", "gather", "split"}
# Do not keep a value for a second reader: XLA computes it twice.
COMPARISONS = {"max", "min", "eq", "ne", "lt", "le", "gt", "ge", "clamp"}
FUSED = {
    *MOVES,
    *COMPARISONS,
    *("select_n", "convert_element_type", "reduce_precision", "add", "add_any", "sub", "mul", "neg", "and"),
    *("or", "not", "xor", "abs", "sign", "square", "integer_pow", "is_finite", "floor", "ceil", "round"),
    *("shift_left", "shift_right_logical", "shift_right_arithmetic", "real", "imag", "population_count"),
    *("exp", "exp2", "log", "log1p", "log2", "expm1", "tanh", "one_minus_square", "sin", "cos", "tan", "logistic"),
    *("erf", "erfc", "erf_inv", "div", "rem", "pow", "sqrt", "rsqrt", "cbrt", "atan2", "sinh", "cosh", "asin", "acos"),
    *("atan", "lgamma", "digamma"),
}
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin"}
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters that hold the equations of a call
LOOPS = {"scan", "while", "cond"}
LOOP_INSTRUCTIONS = 3  # of XLA before a loop begins: start values, their copies, a tuple
INDEX_BYTES = 4  # of a place along an axis
# Efforts by benchmarks/estimates.py, in operations of a large matrix product, of which a core does 70e9 a second: of an
# operation of a filter's gradient on a CPU, where XLA has no library for it (60 … 400), and of a byte that is read or
# written (6e9 a second).
FILTER_EFFORT = 220.0
BYTE_EFFORT = 11.0
MARGIN = 1.19  # for the gaps between buffers that XLA packs; benchmarks/estimates.py compares


class Footprint(NamedTuple):
    """What a program takes.

    Attributes:
      arguments: bytes of its arguments.
      results: bytes of its results.
      temporaries: bytes of what it holds between.
      operations: multiplications and additions.
      effort: the time that these take and that buffers take to be read and written, in operations of a large matrix
        product.
    """

    arguments: int
    results: int
    temporaries: int
    operations: float
    effort: float

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.arguments + self.results + self.temporaries


@dataclass
class _Node:
    """An equation, or a loop or branch as one: numbers of the values that it reads and makes."""

    name: str
    reads: list[int]
    makes: list[int]
    operations: float = 0.0
    effort: float = 0.0
    inside: int = 0  # bytes held inside, beside what it reads and makes
    copies: list[int] = field(default_factory=list)  # values that it reads in another layout
    extra: int = 0  # bytes of its result in another layout


@dataclass
class _Graph:
    """Equations of a program, calls opened; values are numbers."""

    nodes: list[_Node] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    alias: dict[int, int] = field(default_factory=dict)  # value → the value whose buffer it is

    def add(self, aval: Any) -> int:
        return self.add_bytes(count_aval(aval), getattr(aval, "shape", ()))

    def add_bytes(self, count: int, shape: tuple[int, ...] = ()) -> int:
        self.bytes.append(count)
        self.shapes.append(shape)
        return len(self.bytes) - 1

    def view(self, value: int, aval: Any) -> int:
        view = self.add(aval)
        self.alias[view] = value
        return view

    def fits(self, value: int, other: int) -> bool:
        """Whether a value may be written over another: not where it is read in another shape."""
        return (self.bytes[value], self.shapes[value]) == (self.bytes[other], self.shapes[other])

    def root(self, value: int) -> int:
        while value in self.alias:
            value = self.alias[value]
        return value


def count_aval(aval: Any) -> int:
    """Return the bytes of an array, of its shape or of its abstract value."""
    if not hasattr(aval, "shape"):
        return 0
    dtype = aval.dtype
    itemsize = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else np.dtype(dtype).itemsize
    return math.prod(aval.shape) * itemsize


def count_function(
    function: Callable[..., Any],
    *arguments: Any,
    donated: Sequence[int] = (),
    repeat: bool = True,
    margin: float = MARGIN,
) -> Footprint:
    """Count what a compiled call of a function takes.

    Args:
      function: of arrays.
      arguments: arrays or their shapes.
      donated: numbers of the arguments whose buffers the results take.
      repeat: whether what a loop does counts as often as it is done, where that is known; a loop whose length is not
        known counts once.
      margin: factor for what XLA holds beside the buffers that are counted.

    Returns:
      Bytes and operations.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    given = sum(map(count_aval, closed.in_avals))
    results = sum(map(count_aval, closed.out_avals))
    kept = sum(count_aval(leaf) for number in donated for leaf in jax.tree.leaves(arguments[number]))
    operations, effort, held = _count_closed(closed, repeat)
    return Footprint(given, results - kept, int(margin * held), operations, effort)


def _count_closed(closed: ClosedJaxpr, repeat: bool) -> tuple[float, float, int]:
    """Operations, effort, and the most bytes held at once beside inputs and results."""
    graph = _Graph()
    inputs = [graph.add(var.aval) for var in closed.jaxpr.invars]
    constants = [graph.add(var.aval) for var in closed.jaxpr.constvars]
    outputs = _inline(graph, closed.jaxpr, constants, inputs, repeat)
    nodes = _select_needed(graph, outputs)
    return _sum_work(graph, nodes, inputs + constants, outputs)


def _sum_work(
    graph: _Graph, nodes: list[_Node], inputs: Sequence[int], outputs: Sequence[int], changing: Sequence[int] = ()
) -> tuple[float, float, int]:
    moving, peak = _measure_buffers(graph, nodes, inputs, outputs, changing)
    return sum(node.operations for node in nodes), sum(node.effort for node in nodes) + moving, peak


def _close(called: Any) -> Jaxpr:
    return called.jaxpr if hasattr(called, "consts") else called


def _list_bodies(params: Any) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                yield item


def _inline(graph: _Graph, jaxpr: Jaxpr, constants: list[int], inputs: list[int], repeat: bool) -> list[int]:
    slots: dict[Any, int] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))

    def read(atom: Any) -> int:
        if not isinstance(atom, Literal):
            return slots[atom]
        value = graph.add(atom.aval)
        graph.bytes[value] = 0  # a number in the program
        return value

    for eqn in jaxpr.eqns:
        reads = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        called = next((eqn.params[key] for key in CALLS if key in eqn.params), None)
        body = None if called is None or name in LOOPS else _close(called)
        if body is not None and len(body.invars) == len(reads):
            held = [graph.add(var.aval) for var in body.constvars]
            slots.update(zip(eqn.outvars, _inline(graph, body, held, reads, repeat), strict=True))
            continue
        if name == "scan" and eqn.params["length"] == 1:  # XLA opens it
            slots.update(zip(eqn.outvars, _inline_step(graph, eqn, reads, repeat), strict=True))
            continue
        makes = [graph.add(var.aval) for var in eqn.outvars]
        slots.update(zip(eqn.outvars, makes, strict=True))
        node = _Node(name, reads, makes)
        if name in ALIASES and len(makes) == len(reads):
            graph.alias.update(zip(makes, reads, strict=True))
        elif any(_list_bodies(eqn.params)):
            _count_loop(graph, node, eqn, repeat)
        else:
            _count_equation(node, eqn)
        graph.nodes.append(node)
    return [read(atom) for atom in jaxpr.outvars]


def _inline_step(graph: _Graph, eqn: Any, reads: list[int], repeat: bool) -> list[int]:
    """Add the equations of a scan's only step; what it reads of xs and makes of ys are views of these."""
    body = _close(eqn.params["jaxpr"])
    held, carried = count_scanned(eqn.params)
    scanned = held + carried
    views = [graph.view(value, var.aval) for value, var in zip(reads[scanned:], body.invars[scanned:], strict=True)]
    constants = [graph.add(var.aval) for var in body.constvars]
    makes = _inline(graph, body, constants, [*reads[:scanned], *views], repeat)
    stacked = zip(makes[carried:], eqn.outvars[carried:], strict=True)
    return [*makes[:carried], *(graph.view(value, var.aval) for value, var in stacked)]


def _count_loop(graph: _Graph, node: _Node, eqn: Any, repeat: bool) -> None:
    counts = [_count_body(eqn, body, repeat) for body in _list_bodies(eqn.params)]
    operations, efforts, insides = zip(*counts, strict=True)
    length = eqn.params.get("length", 1) if repeat else 1
    combine = max if node.name == "cond" else sum
    node.operations, node.effort = length * combine(operations), length * combine(efforts)
    node.inside = max(insides)


def _count_body(eqn: Any, body: Any, repeat: bool) -> tuple[float, float, int]:
    jaxpr = _close(body)
    graph = _Graph()
    inputs = [graph.add(var.aval) for var in jaxpr.invars]
    outputs = _inline(graph, jaxpr, [graph.add(var.aval) for var in jaxpr.constvars], inputs, repeat)
    nodes = _select_needed(graph, outputs)
    changing: Sequence[int] = ()  # what is taken of xs and put into ys stays in their buffers
    if eqn.primitive.name == "scan":
        first, carried = count_scanned(eqn.params)
        changing = inputs[first : first + carried]
    elif eqn.primitive.name == "while" and body is eqn.params["body_jaxpr"]:
        changing = inputs[eqn.params["body_nconsts"] :]
    return _sum_work(graph, nodes, inputs, outputs, changing)


def _count_equation(node: _Node, eqn: Any) -> None:
    size = sum(math.prod(var.aval.shape) for var in eqn.outvars if hasattr(var.aval, "shape"))
    node.operations = float(size) if node.name not in ALIASES else 0.0
    if node.name in REDUCTIONS or node.name.startswith("reduce"):
        node.operations = float(math.prod(eqn.invars[0].aval.shape))
    elif node.name in MOVES or node.name == "concatenate":
        node.operations = 0.0
    elif node.name == "dot_general":
        ((contracted, _), _) = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        node.operations = 2.0 * size * math.prod(shape[axis] for axis in contracted)
        node.copies = [value for value, copied in zip(node.reads, _find_dot_copies(eqn), strict=True) if copied]
    elif node.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval
        outputs = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        node.operations = 2.0 * size * math.prod(kernel.shape) / outputs
        *copied, result = _find_convolution_copies(eqn)
        node.copies = [value for value, copied in zip(node.reads, copied, strict=True) if copied]
        node.extra = count_aval(eqn.outvars[0].aval) if result else 0
    elif node.name == "select_and_scatter_add":  # the gradient of max pooling
        sources, inputs = (var.aval for var in eqn.invars)
        # XLA finds the place of each maximum: a number per axis, on a CPU by arrays of the numbers of all inputs.
        node.inside = INDEX_BYTES * inputs.ndim * (sources.size + (inputs.size if uses_cpu() else 0))
    node.effort = node.operations * (FILTER_EFFORT if uses_cpu() and _differentiates_filter(eqn) else 1.0)


def _differentiates_filter(eqn: Any) -> bool:
    """Whether it is a convolution with another's gradient, which is larger than the filter whose gradient results."""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    numbers = eqn.params["dimension_numbers"]
    window = math.prod(eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:])
    return window > math.prod(eqn.outvars[0].aval.shape[axis] for axis in numbers.out_spec[2:]) > 1


def _find_dot_copies(eqn: Any) -> list[bool]:
    """Whether each operand is laid out anew: batch dimensions come first, contracted ones stand together."""
    ((left, right), (batch, batch2)) = eqn.params["dimension_numbers"]
    copies = []
    for atom, contracted, leading in ((eqn.invars[0], left, batch), (eqn.invars[1], right, batch2)):
        ndim = len(atom.aval.shape)
        free = [d for d in range(ndim) if d not in contracted and d not in leading]
        orders = [[*leading, *contracted, *free], [*leading, *free, *contracted]]
        real = [d for d in range(ndim) if atom.aval.shape[d] != 1]
        copies.append(not any([d for d in order if d in real] == real for order in orders))
    return copies


def _find_convolution_copies(eqn: Any) -> list[bool]:
    """Whether inputs, filter and result are laid out anew: channels come last."""
    numbers = eqn.params["dimension_numbers"]
    ndim = len(numbers.lhs_spec)
    images, filters = (0, ndim - 1, *range(1, ndim - 1)), (ndim - 1, ndim - 2, *range(ndim - 2))
    specs = ((numbers.lhs_spec, images), (numbers.rhs_spec, filters), (numbers.out_spec, images))
    return [tuple(spec) != usual for spec, usual in specs]


def _select_needed(graph: _Graph, outputs: Sequence[int]) -> list[_Node]:
    """Return the nodes that results depend on."""
    needed, kept = set(outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.makes):
            needed.update(node.reads)
            kept.append(node)
    return kept[::-1]


@dataclass
class _Step:
    """A node that fills buffers: those that it reads and fills, and those read that it may write over.

    `moved` counts the bytes that it reads and writes; a loop's are counted inside.
    """

    reads: frozenset[int]
    fills: list[int]
    extra: int
    in_place: frozenset[int]
    moved: int = 0
    is_loop: bool = False


def _measure_buffers(
    graph: _Graph, nodes: list[_Node], inputs: Sequence[int], outputs: Sequence[int], changing: Sequence[int] = ()
) -> tuple[float, int]:
    """Return the effort of reading and writing buffers, and the most bytes held at once beside inputs and results.

    Of a loop's body `changing` are the inputs that the results replace: these count, unless they take their buffers.
    """
    final = {graph.root(value) for value in outputs}
    steps = _list_steps(graph, nodes, set(inputs) | final)
    held = set(inputs) - set(changing)
    if uses_cpu():
        orders = [_order_breadth_first(steps, inputs)]
    else:
        orders = [list(range(len(steps))), _order_by_freed(graph, steps, final | held)]
    moved = sum(step.moved for step in steps if not step.is_loop)
    peaks = [_simulate(graph, steps, order, inputs, final | held, bool(changing)) for order in orders]
    return BYTE_EFFORT * moved, min(peaks)


def _list_steps(graph: _Graph, nodes: list[_Node], buffered: set[int]) -> list[_Step]:
    """Find which values have a buffer beside those given, and what each is computed from."""
    nodes = [node for node in nodes if node.name not in ALIASES]
    readers: Counter[int] = Counter()
    for node in nodes:
        reads = {graph.root(value) for value in node.reads}
        readers.update(reads if node.name not in COMPARISONS else ())
        if node.name not in FUSED:
            buffered.update(map(graph.root, node.makes))
            # A CPU's library sums up what stands in memory.
            buffered.update(reads if uses_cpu() or node.name not in REDUCTIONS else ())
    buffered.update(
        graph.root(node.makes[0]) for node in nodes if node.name not in MOVES and readers[graph.root(node.makes[0])] > 1
    )
    # Of a value without a buffer: the buffers that it is computed from → the bytes that are read of each.
    sources: dict[int, dict[int, int]] = {}
    moved: dict[int, frozenset[int]] = {}  # the same: those of which it reads elements elsewhere
    steps = []
    for node in nodes:
        roots = [graph.root(value) for value in node.reads]
        read: dict[int, int] = {}
        for root in roots:
            of_root = {root: graph.bytes[root]} if root in buffered else sources.get(root, {})
            read |= {value: max(count, read.get(value, 0)) for value, count in of_root.items()}
        if node.name in PARTS:
            made = sum(graph.bytes[value] for value in node.makes)
            read = {value: min(count, made) for value, count in read.items()}
        needed = frozenset(read)
        fills = [graph.root(value) for value in node.makes if graph.root(value) in buffered]
        elsewhere = frozenset().union(*(moved.get(root, frozenset()) for root in roots if root not in buffered))
        if node.name in MOVES and node.name != "broadcast_in_dim":
            elsewhere = needed
        if fills:
            for value in node.copies:
                root, copy = graph.root(value), graph.add_bytes(graph.bytes[value])
                steps.append(_Step(frozenset({root}), [copy], 0, frozenset(), 2 * graph.bytes[value]))
                needed = needed - {root} | {copy}
                read = {key: count for key, count in read.items() if key != root} | {copy: graph.bytes[value]}
            if node.name in LOOPS or node.name.startswith(("scatter", "dynamic_update")):
                elsewhere = frozenset()
            elif node.name not in FUSED:
                elsewhere = needed
            is_loop = node.name in LOOPS
            moving = sum(read.values()) + sum(graph.bytes[value] for value in fills)
            steps.append(_Step(needed, fills, node.inside + node.extra, needed - elsewhere, moving, is_loop))
        else:
            makes = [graph.root(value) for value in node.makes]
            sources |= dict.fromkeys(makes, read)
            moved |= dict.fromkeys(makes, elsewhere)
    return steps


def _order_breadth_first(steps: list[_Step], inputs: Sequence[int]) -> list[int]:
    """Return the steps as XLA orders them for a CPU, whatever they hold: the first to be ready is the first to run."""
    readers: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        for value in step.reads:
            readers.setdefault(value, []).append(number)
    filled = {value for step in steps for value in step.fills}
    missing = [len(step.reads & filled.union(inputs)) for step in steps]
    ready = deque(number for number, count in enumerate(missing) if not count)

    def announce(value: int) -> None:
        for number in readers.get(value, ()):
            missing[number] -= 1
            if not missing[number]:
                ready.append(number)

    for value in dict.fromkeys(inputs):
        announce(value)
    order = []
    waits = {number: LOOP_INSTRUCTIONS for number, step in enumerate(steps) if step.is_loop}
    while ready:
        number = ready.popleft()
        if waits.get(number):
            waits[number] -= 1
            ready.append(number)
            continue
        order.append(number)
        for value in steps[number].fills:
            announce(value)
    return order


def _order_by_freed(graph: _Graph, steps: list[_Step], lasting: set[int]) -> list[int]:
    """Return the steps as XLA orders them for a GPU: of those ready, the one that frees most for what it fills."""
    filled_by = {value: number for number, step in enumerate(steps) for value in step.fills}
    readers: dict[int, set[int]] = {}
    for number, step in enumerate(steps):
        for value in step.reads:
            readers.setdefault(value, set()).add(number)
    missing = [len({filled_by[value] for value in step.reads if value in filled_by}) for step in steps]

    def weigh(number: int) -> int:
        step = steps[number]
        freed = sum(graph.bytes[v] for v in step.reads if v not in lasting and len(readers[v]) == 1)
        return sum(graph.bytes[v] for v in step.fills) - freed

    ready = [(weigh(number), number) for number, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    done = set()
    while ready:
        _, number = heapq.heappop(ready)
        if number in done:
            continue
        done.add(number)
        order.append(number)
        step = steps[number]
        touched = set()
        for value in step.reads:
            readers[value].discard(number)
            if len(readers[value]) == 1:
                touched |= readers[value]
        followers = {reader for value in step.fills for reader in readers.get(value, ())}
        for follower in followers:
            missing[follower] -= 1
        for other in touched | followers:
            if not missing[other] and other not in done:
                heapq.heappush(ready, (weigh(other), other))
    return order


@dataclass
class _Buffer:
    """Bytes that are held from one place in an order to another, both included."""

    bytes: int
    first: int
    last: int


def _simulate(
    graph: _Graph, steps: list[_Step], order: Sequence[int], inputs: Sequence[int], lasting: set[int], is_loop: bool
) -> int:
    """Return the most bytes held at once where steps run in an order, beside inputs and results.

    As XLA assigns buffers: a result computed element by element takes the buffer of what is read there for the last
    time, and the buffer of a result of the whole serves others before the result is there.
    """
    place = {number: k for k, number in enumerate(order)}
    end = len(order)
    last = {value: place[number] for number in order for value in steps[number].reads}
    given = set(inputs)
    buffers: dict[int, _Buffer] = {value: _Buffer(0, -1, end) for value in inputs}  # value → its buffer
    for k, number in enumerate(order):
        step = steps[number]
        dying = [v for v in step.in_place if last[v] == k and v in buffers and v not in lasting]
        for value in step.fills:
            ends = end if value in lasting else last.get(value, k)
            match = next((v for v in dying if graph.fits(v, value)), None)
            if match is None or (match in given and not is_loop):
                buffers[value] = _Buffer(graph.bytes[value], k, ends)
            else:
                dying.remove(match)
                buffers[value] = buffers[match]
                buffers[value].last = ends
    results = {} if is_loop else {id(buffers[v]): buffers[v] for v in lasting - given if v in buffers}
    others = {id(one): one for one in buffers.values() if one.bytes and id(one) not in results}
    return _pack(list(others.values()), list(results.values()), [steps[number].extra for number in order])


def _pack(buffers: list[_Buffer], results: list[_Buffer], extras: list[int]) -> int:
    """Return the most bytes held at once of buffers that find no place in those of results."""
    homes = [[one] for one in sorted(results, key=lambda one: one.bytes)]
    change = [0] * (len(extras) + 2)
    for buffer in sorted(buffers, key=lambda one: -one.bytes):
        free = (
            home
            for home in homes
            if home[0].bytes >= buffer.bytes and all(one.last < buffer.first or buffer.last < one.first for one in home)
        )
        home = next(free, None)
        if home is not None:
            home.append(buffer)
            continue
        change[buffer.first] += buffer.bytes
        change[buffer.last + 1] -= buffer.bytes
    live = peak = 0
    for k, extra in enumerate(extras):
        live += change[k]
        peak = max(peak, live + extra)
    return peak
