"""Where the parameters of a program act linearly, found from its equations alone.

A *view* is a linear function of exactly one parameter leaf that depends on nothing else: a leaf reshaped, transposed,
scaled by a constant. A *use* is an equation in which a view meets another value linearly, z = view * value (dot,
convolution, product) or z = view + value. Then the gradient with respect to the leaf follows from the other value and
from the gradient with respect to z, which is collected at a *site*: the slot of z, or of the sum that z alone enters.
A leaf of which one use is of another kind is *plain*: its Jacobian is taken whole. What the tables below do not list is
never guessed.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from ntklens.ntk.convolution import is_convolution
from ntklens.ntk.program import Equation, Program

# Linear functions of their first operand, the others being constants.
VIEW_PRIMITIVES = {
    "reshape",
    "transpose",
    "broadcast_in_dim",
    "convert_element_type",
    "squeeze",
    "expand_dims",
    "copy",
    "copy_p",
    "name",
    "rev",
    "slice",
    "neg",
}
SCALINGS = {"mul": (0, 1), "div": (0,)}  # by a constant; the operands at which a view stays a view
# Primitives linear in one operand with the other held fixed, and the operands at which a view makes a use.
USE_PRIMITIVES = {
    "dot_general": (0, 1),
    "conv_general_dilated": (1,),
    "add": (0, 1),
    "add_any": (0, 1),
    "sub": (0, 1),
    "mul": (0, 1),
    "div": (0,),
}
SUMS = {"add", "add_any", "sub"}


@dataclass(frozen=True)
class View:
    """A leaf after a chain of linear steps.

    `one_to_one` says that every element of the view is one element of the leaf, times one constant for all, and that
    none is left out: the gradient's norms and inner products are then those of the view.
    """

    leaf: int
    steps: tuple[Equation, ...] = ()
    one_to_one: bool = True

    def same_as(self, other: "View") -> bool:
        """Whether both views arrange the leaf alike."""
        return [(s.primitive.name, s.params) for s in self.steps] == [(s.primitive.name, s.params) for s in other.steps]


class Extent(NamedTuple):
    """How large a use's gradients are: for each of T positions, in each group, K numbers times F numbers."""

    positions: int
    width: int
    features: int
    groups: int = 1

    @property
    def size(self) -> int:
        """Numbers of the gradient."""
        return self.groups * self.width * self.features


@dataclass(frozen=True)
class Use:
    """A view entering `equation` as operand `side`; the gradient with respect to the result is that at slot `site`.

    `is_outer` says that the gradient with respect to the view is a sum of outer products over positions, and keeps the
    leaf's norms and inner products.
    """

    view: View
    equation: Equation
    side: int
    site: int
    is_outer: bool

    @property
    def other(self) -> int:
        """Slot of the operand that is not the view."""
        return self.equation.inputs[1 - self.side]

    @property
    def is_sum(self) -> bool:
        """Whether the view is added to the other operand."""
        return self.equation.primitive.name in SUMS

    @property
    def is_convolution(self) -> bool:
        """Whether the view is the filter of a convolution."""
        return is_convolution(self.equation)

    @property
    def sign(self) -> int:
        """-1 where the view is subtracted."""
        return -1 if self.equation.primitive.name == "sub" and self.side == 1 else 1

    @property
    def dot_dimensions(self) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
        """(contracted, batch) dimensions, each of (view, other operand)."""
        contracted, batch = self.equation.params["dimension_numbers"]
        order = 1 if self.side == 0 else -1
        return tuple(map(tuple, contracted[::order])), tuple(map(tuple, batch[::order]))

    def adds_up_with(self, other: "Use") -> bool:
        """Whether the two uses' outer products can be summed as they stand."""
        if self.is_sum != other.is_sum or not self.view.same_as(other.view):
            return False
        if self.is_convolution or other.is_convolution:
            return self.is_convolution and other.is_convolution and self._filter_layout == other._filter_layout
        return self.is_sum or sorted(self.dot_dimensions[0][0]) == sorted(other.dot_dimensions[0][0])

    @property
    def _filter_layout(self) -> tuple:
        params = self.equation.params
        return tuple(params["dimension_numbers"].rhs_spec), params["feature_group_count"]

    def find_axis(self, program: Program) -> int | None:
        """The axis of the result along which a leaf of one axis lies, copied along all others; None if it does not."""
        shape = program.avals[self.view.leaf].shape
        if len(shape) != 1 or shape[0] < 2:
            return None
        axis = 0
        for step in self.view.steps:
            result = program.avals[step.outputs[0]].shape
            if step.primitive.name == "broadcast_in_dim":
                axis = step.params["broadcast_dimensions"][axis]
            elif step.primitive.name in ("reshape", "expand_dims", "squeeze") and math.prod(result) == shape[0]:
                axis = result.index(shape[0])
            else:
                return None
        operand, found = (
            program.avals[slot].shape for slot in (self.equation.inputs[self.side], self.equation.outputs[0])
        )
        return axis if len(operand) == len(found) and operand[axis] == found[axis] else None

    def measure(self, program: Program) -> Extent:
        """The size of the outer products, of a use that has such."""
        view, other, result = (
            program.avals[slot].shape
            for slot in (self.equation.inputs[self.side], self.other, self.equation.outputs[0])
        )
        if self.is_sum:
            return Extent(1, 1, math.prod(result))
        if self.is_convolution:
            spec, groups = self.equation.params["dimension_numbers"], self.equation.params["feature_group_count"]
            features = view[spec.rhs_spec[0]]
            positions = math.prod(result) // max(result[spec.out_spec[1]], 1)
            return Extent(positions, math.prod(view) // max(features, 1), features // groups, groups)
        inner = math.prod(view[d] for d in self.dot_dimensions[0][0])
        positions = math.prod(other) // max(inner, 1)
        return Extent(positions, inner, math.prod(result) // max(positions, 1))


@dataclass(frozen=True)
class Analysis:
    """What a program does with its parameters.

    `uses` maps each leaf (its number) to its uses, all of them; `plain` lists the leaves to differentiate whole; leaves
    in neither do not act. `constants` and `variables` split the equations into those that depend neither on a leaf nor
    on the sample, and the rest.
    """

    program: Program
    uses: dict[int, tuple[Use, ...]]
    plain: tuple[int, ...]
    constants: tuple[Equation, ...]
    variables: tuple[Equation, ...]

    def get_outer_uses(self, leaf: int) -> tuple[Use, ...]:
        """The leaf's uses if all yield outer products that add up, else none."""
        uses = self.uses.get(leaf, ())
        return uses if all(use.is_outer and use.adds_up_with(uses[0]) for use in uses) else ()

    @property
    def sites(self) -> tuple[int, ...]:
        """Slots at which gradients are collected."""
        return tuple(dict.fromkeys(use.site for uses in self.uses.values() for use in uses))


def analyse_program(program: Program, differentiated: tuple[int, ...]) -> Analysis:
    """Find the uses of the leaves `differentiated` (by number); see the module's text."""
    views = {leaf: View(leaf) for leaf in differentiated}  # a leaf's number is its slot
    constant = set(program.constants)
    found: list[tuple[View, Equation, int]] = []
    plain: set[int] = set()
    split: tuple[list[Equation], list[Equation]] = ([], [])
    for equation in program.equations:
        is_constant = constant.issuperset(equation.inputs)
        if is_constant:
            constant.update(equation.outputs)
        split[0 if is_constant else 1].append(equation)
        sides = [side for side, slot in enumerate(equation.inputs) if slot in views]
        if not sides:
            continue
        view = views[equation.inputs[sides[0]]]
        if len(sides) == 1 and _keeps_view(program, equation, sides[0], constant):
            views[equation.outputs[0]] = _extend_view(program, view, equation, sides[0])
        elif len(sides) == 1 and _is_use(program, equation, sides[0]):
            found.append((view, equation, sides[0]))
        else:
            plain.update(views[equation.inputs[side]].leaf for side in sides)
    if program.output in views:
        plain.add(views[program.output].leaf)
    found = [use for use in found if use[0].leaf not in plain]
    return Analysis(program, _place_uses(program, found), tuple(sorted(plain)), tuple(split[0]), tuple(split[1]))


def _keeps_view(program: Program, equation: Equation, side: int, constant: set[int]) -> bool:
    """Whether an equation that a view enters at `side` yields a view."""
    others = [slot for k, slot in enumerate(equation.inputs) if k != side]
    if not constant.issuperset(others) or not _is_real(program, equation.outputs[0]):
        return False
    name = equation.primitive.name
    return (name in VIEW_PRIMITIVES and side == 0) or side in SCALINGS.get(name, ())


def _extend_view(program: Program, view: View, equation: Equation, side: int) -> View:
    name = equation.primitive.name
    one_to_one = view.one_to_one and program.size(equation.outputs[0]) == program.size(equation.inputs[side])
    if name in SCALINGS:
        one_to_one = one_to_one and program.size(equation.inputs[1 - side]) == 1
    return View(view.leaf, (*view.steps, equation), one_to_one)


def _is_use(program: Program, equation: Equation, side: int) -> bool:
    name = equation.primitive.name
    return side in USE_PRIMITIVES.get(name, ()) and all(
        _is_real(program, slot) for slot in (*equation.inputs, *equation.outputs)
    )


def _is_real(program: Program, slot: int) -> bool:
    return jnp.issubdtype(program.avals[slot].dtype, jnp.floating)


def _place_uses(program: Program, found: list[tuple[View, Equation, int]]) -> dict[int, tuple[Use, ...]]:
    """Give each use its site: a bias added to a product takes the same gradient, so both share the site of the sum."""
    readers = Counter(slot for equation in program.equations for slot in equation.inputs)
    readers[program.output] += 1
    sums: dict[int, int] = {}  # slot that only enters a sum at which a gradient is collected → site of that sum
    uses: dict[int, tuple[Use, ...]] = {}
    for view, equation, side in reversed(found):
        result = equation.outputs[0]
        site = sums.get(result, result)
        use = Use(view, equation, side, site, view.one_to_one and _is_outer(program, equation, side))
        uses[view.leaf] = (use, *uses.get(view.leaf, ()))
        keeps_sign = (equation.primitive.name, side) != ("sub", 0)
        if use.is_sum and keeps_sign and readers[use.other] == 1 and _same_aval(program, use.other, result):
            sums[use.other] = site
    return uses


def _is_outer(program: Program, equation: Equation, side: int) -> bool:
    if equation.primitive.name in SUMS:
        return program.size(equation.inputs[side]) == program.size(equation.outputs[0])
    if is_convolution(equation):
        return True
    return equation.primitive.name == "dot_general" and not any(equation.params["dimension_numbers"][1])


def _same_aval(program: Program, first: int, second: int) -> bool:
    a, b = program.avals[first], program.avals[second]
    return (a.shape, a.dtype) == (b.shape, b.dtype)
