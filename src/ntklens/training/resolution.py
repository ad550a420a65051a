"""The rule that chooses a step so that the minimum of the selection loss comes after about 200 updates.

n is the update of the lowest selection loss, n1 the first record near it: within 1 % of it, and within a tenth of the
fall to it. The anchor is n1: where the loss has a knee and then a plateau, as under mean squared error, n is no
meaningful update and n1 is. The tenth counts where the whole fall is below 10 %, of hard data: without it n1 would be
the first update. The rule, and what was measured of it: docs/protocol.md. Nothing here trains: `search_step` is given a
function that does a round.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ntklens.errors import InputError

AIM, LOW, HIGH = 170, 100, 300  # of n1; n ≈ 200 under cross-entropy
LAST = 640  # updates of a round: how far beyond 400 the minimum lies need not be known
RECORD_RATIO = 1.19  # between a round's records
ROUNDS = 3
PLATEAU = 0.01  # of the selection loss
SHARE = 0.1  # of the fall of the selection loss, where that is less
LEARNT = 0.7  # of the first train loss: above it no minimum has come yet
RISEN = 1.05  # of the lowest selection loss: the minimum has passed
FOUND, LATE, DIVERGED, NO_MINIMUM, UNSETTLED = "found", "late", "diverged", "no minimum", "not in 100–300"

ADAM_SCALE = 3.4e-3  # of Adam's step at width 1 and D = 100
CURVATURE = {"cross_entropy": 0.1, "mse": 0.7}  # c of η = c (1 − momentum) / λ_0
DESCENT = {"cross_entropy": 0.0075, "mse": 0.05}  # ρ: share of the loss that the first update removes, to first order


class Start(NamedTuple):
    """Where the search begins.

    Attributes:
        learning_rate: the first step to try.
        top: no larger step is tried.
        method: the rule that it comes from.
    """

    learning_rate: float
    top: float = math.inf
    method: str = ""


class Round(NamedTuple):
    """One trial of a step.

    Attributes:
        learning_rate: the step.
        end: `found`, `late` or `diverged`.
        near: n1, the first record whose selection loss is near the lowest.
        minimum: n, the record of the lowest.
        updates: updates done.
    """

    learning_rate: float
    end: str
    near: int
    minimum: int
    updates: int

    @property
    def distance(self) -> float:
        """How far n1 is from the aim, |ln(n1 / 170)|."""
        return abs(math.log(max(self.near, 1) / AIM))


class Choice(NamedTuple):
    """The step that was chosen.

    Attributes:
        learning_rate: the step.
        status: `found`; `not in 100–300`: the step whose n1 came nearest; `no minimum`: all rounds were late, and it is
            the largest stable step tried; `diverged`: all rounds did, and it is a quarter of the last.
        rounds: the trials.
    """

    learning_rate: float
    status: str
    rounds: tuple[Round, ...]


class Watch:
    """Follows the losses of one round and says when it has ended."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.first_train = math.nan
        self.reference = 0  # the last record that lowered the selection loss visibly below the reference before
        self.reference_loss = math.inf

    def look(self, step: int, train: float, selection: float) -> str | None:
        """Take a record; return how the round ends, or None while it goes on.

        Args:
            step: updates done; the first record is at 0.
            train: mean loss over the training set.
            selection: mean loss over the samples that choose the minimum.

        Returns:
            How the round ends; None while it goes on.
        """
        if not self.steps:
            self.first_train = train
        if not (math.isfinite(train) and math.isfinite(selection)):
            return DIVERGED
        if step <= 10 and train > 3 * self.first_train:
            return DIVERGED
        self.steps.append(step)
        self.losses.append(selection)
        if len(self.steps) == 1 or selection < self.reference_loss - self._find_tolerance(self.reference_loss):
            self.reference, self.reference_loss = step, selection
        if train < LEARNT * self.first_train:
            risen = selection > RISEN * min(self.losses) and step > 1.15 * self.reference
            if risen or step >= 1.6 * self.reference + 4:
                return FOUND
        return LATE if step >= LAST else None

    def finish(self, learning_rate: float, end: str, updates: int) -> Round:
        """Return the round."""
        if not self.losses:
            return Round(learning_rate, end, 0, 0, updates)
        lowest = min(self.losses)
        limit = lowest + self._find_tolerance(lowest)
        near = next(step for step, loss in zip(self.steps, self.losses, strict=True) if loss <= limit)
        return Round(learning_rate, end, near, self.steps[self.losses.index(lowest)], updates)

    def _find_tolerance(self, reference: float) -> float:
        """Return by how much two selection losses must differ to count as different."""
        return min(PLATEAU * reference, SHARE * (self.losses[0] - min(self.losses)))


def start_adam(width: int, train_size: int) -> Start:
    """Return the start for Adam on dense networks, η = 3.4e-3 · width^(−2/3) · (D/100)^0.3.

    Args:
        width: of the hidden layers; where the parameterisation makes one step fit all widths, its base width.
        train_size: D.
    """
    return Start(ADAM_SCALE * width ** (-2 / 3) * (train_size / 100) ** 0.3, method="width")


def start_curvature(loss: str, momentum: float, sharpness: float) -> Start:
    """Return the start for gradient descent, η = c (1 − momentum) / λ_0; never above (1 − momentum) / λ_0.

    Args:
        loss: `cross_entropy` or `mse`.
        momentum: in [0, 1); 0 without.
        sharpness: λ_0, the largest eigenvalue of the train loss's Hessian at the start.
    """
    stable = (1 - momentum) / sharpness if sharpness else math.inf
    return Start(CURVATURE[loss] * stable, stable, "sharpness")


def start_descent(loss: str, value: float, slope: float) -> Start:
    """Return the start for any other model and optimizer, η = ρ L_0 / s.

    Args:
        loss: `cross_entropy` or `mse`.
        value: L_0, the train loss at the start.
        slope: s, by how much the first update lowers it, to first order and per unit of the step; Adam's moves each
            parameter by η, so that s = ‖∇L‖_1.
    """
    return Start(DESCENT[loss] * value / slope if slope else math.inf, method="descent")


def search_step(start: Start, run_round: Callable[[float], Round]) -> Choice:
    """Try steps until one brings n1 into 100 … 300.

    Args:
        start: where to begin.
        run_round: trains one member with a step and returns what came of it.

    Returns:
        The step, and how it was found.

    Raises:
        InputError: if there is no step to begin with: the loss has no slope, or is not finite.
    """
    if not (math.isfinite(start.learning_rate) and start.learning_rate > 0):
        raise InputError(
            f"protocol=resolved: no step to begin with ({start.method} gives {start.learning_rate:g}); "
            "type protocol=paper optimizer.learning_rate=NUMBER"
        )
    rounds: list[Round] = []
    top, rate = start.top, _fit_to_grid(start.learning_rate, start.top)
    while len(rounds) < ROUNDS and not any(math.isclose(rate, one.learning_rate) for one in rounds):
        one = run_round(rate)
        rounds.append(one)
        if one.end == FOUND and LOW <= one.near <= HIGH:
            return Choice(rate, FOUND, tuple(rounds))
        if one.end == DIVERGED:
            top, rate = rate / 2, rate / 4
        elif one.end == LATE:
            rate *= max(math.sqrt(2), 4 if one.near >= 600 else one.near / AIM)
        else:
            rate *= min(max(one.near / AIM, 1 / 16), 16)
        rate = _fit_to_grid(rate, top)
    return _settle(rounds)


def _settle(rounds: Sequence[Round]) -> Choice:
    """Return the best of rounds of which none was accepted."""
    found = [one for one in rounds if one.end == FOUND]
    stable = [one for one in rounds if one.end != DIVERGED]
    if found:
        return Choice(min(stable, key=lambda one: one.distance).learning_rate, UNSETTLED, tuple(rounds))
    if stable:
        return Choice(max(one.learning_rate for one in stable), NO_MINIMUM, tuple(rounds))
    return Choice(min(one.learning_rate for one in rounds) / 4, DIVERGED, tuple(rounds))


def _fit_to_grid(rate: float, top: float) -> float:
    """Return the power of √2 nearest to a step; the largest below the top where that is above it."""
    power = round(2 * math.log2(rate))
    if 2 ** (power / 2) > top:
        power = math.floor(2 * math.log2(top) + 1e-9)
    return 2.0 ** (power / 2)
