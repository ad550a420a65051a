"""How each leaf's share of a kernel is computed, chosen by counted operations and bytes before anything is compiled."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ntklens.ntk.convolution import CONVOLUTION
from ntklens.ntk.gram import uses_cpu
from ntklens.ntk.heads import Head
from ntklens.ntk.linearity import Analysis, Extent, Use
from ntklens.ntk.program import Equation, Program, find_dependent

# The ways to a share, see `Share`.
FACTORS = "two Gram matrices"
HEAD = "one gradient per sample"
PAIRS = "pairs of positions"
BLOCKS = "gradients in blocks"
GRADIENTS = "gradients"
JACOBIAN = "Jacobian"

# Seconds of an operation by those of a large matrix product, measured on a CPU: pairs are small products, one at a
# time, heads a batch of small ones, and a symmetric Gram computes three quarters of its entries.
SLOWNESS = {PAIRS: 2.0, HEAD: 1.5}
GPU_PAIRS = 4  # that a GPU sums one after another
SYMMETRIC = 0.75
CHUNK_BYTES = 4 * 2**20  # of the largest gradient of a convolution's result that stays in a CPU's cache
CHUNK_SAMPLES = 4  # the fewest of a chunk, cache or not
HELD_BYTES = 2**28  # of the largest gradient at a site that is held at once without need; on a GPU:
GPU_HELD_BYTES = 2**31
GPU_BYTES = 2**30  # of one leaf's gradients up to which a GPU forms them whole


@dataclass(frozen=True)
class Share:
    """A leaf, and with it the biases added to its product; how their share of Θ is computed, and what that takes.

    Attributes:
        leaves: numbers of the leaf and of its biases.
        path: one of

            - two Gram matrices, (a_i · a_j) (δ_ic · δ_jc'): a dense layer without positions;
            - one gradient per sample, where the cotangent is the same for all samples: `ntklens.ntk.heads`;
            - pairs of positions, Σ_tt' (a_it · a_jt') (δ_ict · δ_jc't');
            - gradients in blocks: formed from a and δ a few features at a time, never whole;
            - gradients: formed whole with the backward pass, then one Gram;
            - Jacobian: the same of a leaf whose gradients are no outer products.
        operations: multiplications and additions, the backward pass that all share aside.
        bytes: what is held until the Gram.
        trace_path: how its share of the trace is computed.
    """

    leaves: tuple[int, ...]
    path: str
    operations: float
    bytes: int
    trace_path: str


@dataclass(frozen=True)
class KernelPlan:
    """How a kernel Θ [N, C, N2, C] is computed, and what that takes; nothing has been compiled.

    Attributes:
        layers: {layer: shares of its leaves}.
        names: paths of the leaves, by number.
        sizes: N, N2, C.
        chunk: samples that go through the forward and the C backward passes at once.
        passes_operations: multiplications and additions of the products and convolutions of all passes.
        passes_bytes: what the passes of a chunk hold.
    """

    layers: Mapping[str, tuple[Share, ...]]
    names: Mapping[int, str]
    sizes: "Sizes"
    chunk: int
    passes_operations: float
    passes_bytes: int

    @property
    def shares(self) -> tuple[Share, ...]:
        """Those of all layers."""
        return tuple(share for layer in self.layers.values() for share in layer)

    @property
    def kernel_bytes(self) -> int:
        """Bytes of Θ."""
        return self.sizes.samples * self.sizes.columns * self.sizes.outputs**2 * self.sizes.itemsize

    @property
    def operations(self) -> float:
        """Multiplications and additions of the whole kernel."""
        return self.passes_operations + sum(share.operations for share in self.shares)

    @property
    def bytes(self) -> int:
        """Bytes at the peak: what is held of all leaves beside the passes of a chunk or the Gram and its parts."""
        return sum(share.bytes for share in self.shares) + max(self.passes_bytes, 2 * self.kernel_bytes)

    def __str__(self) -> str:
        """A line for each leaf, with the biases that are computed with it, for what all share, and the sum."""
        rows = [
            (" + ".join(self.names[leaf] for leaf in share.leaves), share.path, share.operations, share.bytes)
            for share in self.shares
        ]
        passes = f"forward and {self.sizes.outputs} backward passes"
        rows += [
            ("all leaves", f"{passes}, {self.chunk} samples at a time", self.passes_operations, self.passes_bytes),
            ("sum", "at the peak", self.operations, self.bytes),
        ]
        cells = [("leaf", "path", "Gflop", "MiB")]
        cells += [(name, path, _show(count / 1e9, 3), _show(size / 2**20, 1)) for name, path, count, size in rows]
        widths = [max(len(row[k]) for row in cells) for k in range(4)]
        return "\n".join(
            f"{name:<{widths[0]}}  {path:<{widths[1]}}  {count:>{widths[2]}}  {size:>{widths[3]}}"
            for name, path, count, size in cells
        )


def _show(number: float, decimals: int) -> str:
    """Return a number with decimals, or, where these leave less, with three significant digits."""
    return f"{number:.{decimals}f}" if number >= 100 / 10**decimals or not number else f"{number:.3g}"


@dataclass(frozen=True)
class Sizes:
    """Samples N and N2 (None: the kernel is symmetric), outputs C, bytes of a number."""

    samples: int
    samples2: int | None
    outputs: int
    itemsize: int

    @property
    def both(self) -> int:
        """Samples whose gradients are computed."""
        return self.samples + (self.samples2 or 0)

    @property
    def columns(self) -> int:
        """Samples of the second index."""
        return self.samples if self.samples2 is None else self.samples2

    def count_gram(self, numbers: float) -> float:
        """Operations of a Gram matrix of gradients of so many numbers."""
        share = SYMMETRIC if self.samples2 is None else 1.0
        return 2.0 * self.samples * self.columns * self.outputs**2 * numbers * share


def plan_shares(
    analysis: Analysis, heads: Mapping[int, Head], leaves: Sequence[int], sizes: Sizes
) -> tuple[Share, ...]:
    """Choose how the share of each of the leaves is computed, that of a bias with the leaf it is added to."""
    biases = find_biases(analysis, leaves)
    joined = {bias for group in biases.values() for bias in group}
    return tuple(
        _plan_share(analysis, heads, (leaf, *biases.get(leaf, ())), sizes) for leaf in leaves if leaf not in joined
    )


def _plan_share(analysis: Analysis, heads: Mapping[int, Head], leaves: tuple[int, ...], sizes: Sizes) -> Share:
    leaf, *biases = leaves
    program, c = analysis.program, sizes.outputs
    uses = analysis.get_outer_uses(leaf)
    if not uses:
        numbers = program.size(leaf)
        operations = 2.0 * sizes.both * c * numbers + sizes.count_gram(numbers)
        return Share(leaves, JACOBIAN, operations, sizes.both * c * numbers * sizes.itemsize, JACOBIAN)
    extent = _measure(program, uses, len(biases))
    t, k, f, groups = extent
    whole, parts = c * extent.size, t * groups * (k + c * f)  # numbers of a sample's gradients, and of a and δ
    n, n2, both = sizes.samples, sizes.columns, sizes.both
    forming = 2.0 * both * c * t * extent.size + sizes.count_gram(extent.size)
    costs = {GRADIENTS: (forming, whole)}
    trace_path = PAIRS if groups == 1 and t * (k + c * f) <= c * k * f else GRADIENTS
    if groups == 1:
        if t == 1:
            factors = 2.0 * n * n2 * (k + c * c * (f + 1))
            return Share(leaves, FACTORS, factors, both * parts * sizes.itemsize, FACTORS)
        pairs = 2.0 * t * t * n * n2 * (k + c * c * (f + 1))
        if uses_cpu() or t * t <= GPU_PAIRS:
            costs[PAIRS] = (pairs, parts)
        if leaf in heads:
            costs[HEAD] = (2.0 * both * t * k * f + 2.0 * n * n2 * f * (k + c * c), k * f)
            trace_path = HEAD
        if forms_in_blocks(parts, whole, both * whole * sizes.itemsize):
            del costs[GRADIENTS]
            costs[BLOCKS] = (forming, parts)
    path = min(costs, key=lambda path: costs[path][0] * SLOWNESS.get(path, 1.0))
    operations, numbers = costs[path]
    return Share(leaves, path, operations, both * numbers * sizes.itemsize, trace_path)


def forms_in_blocks(parts: int, whole: int, held: int) -> bool:
    """Whether gradients are formed inside the Gram.

    Args:
        parts: numbers of a and δ of one sample.
        whole: numbers of its gradients.
        held: bytes of all samples' gradients.

    Returns:
        True where that is faster, or the gradients are too large.
    """
    # Measured on a CPU: where both are alike, forming gradients with the backward pass is faster.
    return 2 * parts < whole if uses_cpu() else held > GPU_BYTES and parts < whole


def _measure(program: Program, uses: Sequence[Use], biases: int) -> Extent:
    extents = [use.measure(program) for use in uses]
    positions, width = sum(extent.positions for extent in extents), extents[0].width + biases
    return extents[0]._replace(positions=positions, width=width)


def find_biases(analysis: Analysis, leaves: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """{leaf of a product: leaves added to it, one number per feature}: each is a column of ones beside a."""
    program = analysis.program
    products: dict[int, int] = {}  # site → leaf
    for leaf in leaves:
        uses = analysis.get_outer_uses(leaf)
        if len(uses) == 1 and not uses[0].is_sum and uses[0].side == 1:
            extent = uses[0].measure(program)
            if extent.positions > 1 and extent.groups == 1:
                products[uses[0].site] = leaf
    biases: dict[int, tuple[int, ...]] = {}
    for leaf in leaves:
        uses = analysis.uses.get(leaf, ())
        if len(uses) != 1 or not uses[0].is_sum or uses[0].site not in products:
            continue
        product = analysis.uses[products[uses[0].site]][0]
        axis = uses[0].find_axis(program)
        if axis is not None and axis == _find_feature_axis(program, product):
            biases[products[uses[0].site]] = (*biases.get(products[uses[0].site], ()), leaf)
    return biases


def _find_feature_axis(program: Program, use: Use) -> int | None:
    shape = program.avals[use.equation.outputs[0]].shape
    if use.is_convolution:
        return use.equation.params["dimension_numbers"].out_spec[1]
    return len(shape) - 1 if shape and shape[-1] == use.measure(program).features else None


def plan_kernel(
    analysis: Analysis,
    heads: Mapping[int, Head],
    convolved: Sequence[int],
    layers: Mapping[str, Sequence[int]],
    names: Mapping[int, str],
    sizes: Sizes,
) -> KernelPlan:
    """Plan a whole kernel.

    Args:
        analysis: what the program does with the leaves.
        heads: `ntklens.ntk.heads.find_heads(analysis)`.
        convolved: slots of the results of the convolutions that gradients pass.
        layers: {layer: numbers of its leaves}.
        names: paths of the leaves, by number.
        sizes: of the kernel.

    Returns:
        The plan.
    """
    program, c = analysis.program, sizes.outputs
    passed = find_dependent(analysis.variables, {*analysis.plain, *analysis.sites})
    forward = backward = 0.0
    for equation in analysis.variables:
        operations = count_product(program, equation)
        forward += operations
        backward += operations * sum(slot in passed for slot in equation.inputs)
    chunk = choose_chunk(analysis, convolved, sizes, max(sizes.samples, sizes.columns))
    results = [program.size(slot) for equation in analysis.variables for slot in equation.outputs]
    held = sum(results) + c * (sum(map(program.size, analysis.sites)) + 2 * max(results, default=0))
    return KernelPlan(
        {name: plan_shares(analysis, heads, leaves, sizes) for name, leaves in layers.items()},
        names,
        sizes,
        chunk,
        sizes.both * (forward + c * backward),
        chunk * held * sizes.itemsize,
    )


def count_product(program: Program, equation: Equation) -> float:
    """Multiplications and additions of a product or convolution; 0 for other equations."""
    if equation.primitive.name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        shape = program.avals[equation.inputs[0]].shape
        return 2.0 * program.size(equation.outputs[0]) * math.prod(shape[d] for d in contracted)
    if equation.primitive.name == CONVOLUTION:
        filter = program.avals[equation.inputs[1]].shape
        features = filter[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * program.size(equation.outputs[0]) * math.prod(filter) / max(features, 1)
    return 0.0


def choose_chunk(analysis: Analysis, convolved: Sequence[int], sizes: Sizes, samples: int) -> int:
    """How many samples go through the passes at once.

    Args:
        analysis: has the sites at which gradients are collected.
        convolved: slots of the results of the convolutions that gradients pass.
        sizes: of the kernel.
        samples: how many there are.

    Returns:
        As many as keep the largest gradient in a CPU's cache where that gains, else as many as memory lets go without
        loss of speed; all of them where there are only dense layers.
    """
    if all(uses[0].is_outer and uses[0].measure(analysis.program).positions == 1 for uses in analysis.uses.values()):
        return samples
    places = (*convolved, *analysis.sites)
    largest = max(map(analysis.program.size, places), default=0) * sizes.outputs * sizes.itemsize
    held = (CHUNK_BYTES if convolved else HELD_BYTES) if uses_cpu() else GPU_HELD_BYTES
    fitting = max(CHUNK_SAMPLES, held // max(largest, 1))
    chunks = -(-samples // fitting)
    return -(-samples // max(1, chunks))
