"""What a unit costs: seconds from counted operations (`counting.py`), and how seeds are cut into parts.

Seconds are operations over rates that fit two cores of one machine; a sweep corrects them by what its own finished
units took (`plan.calibrate`).
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # its module imports JAX, which telling the state of a sweep does not need
    from ntklens.training.memory import MemoryNeed


# Operations per second of one core, float32, and seconds per call: round figures that benchmarks/estimates.py checks.
TRAINING_RATE, KERNEL_RATE, SPECTRUM_RATE = 70e9, 60e9, 45e9
UPDATE_SECONDS, RECORD_SECONDS = 6e-5, 2e-3
START_SECONDS = 1.5  # of a configuration: tracing, reading compiled programs, publishing
# Beside the work, of one core: a process's imports; compiling a network's programs where none are kept.
PROCESS_SECONDS, COMPILE_SECONDS = 3.0, 6.0


class Workload(NamedTuple):
    """Counted operations of one seed, and how often it is looked at."""

    training: float
    kernels: float
    spectra: float
    updates: int
    records: int

    def estimate_seconds(self) -> tuple[float, float]:
        """Return the seconds of one core that the operations take, and those of the calls."""
        operations = self.training / TRAINING_RATE + self.kernels / KERNEL_RATE + self.spectra / SPECTRUM_RATE
        return operations, self.updates * UPDATE_SECONDS + self.records * RECORD_SECONDS


class Cost(NamedTuple):
    """What a configuration needs.

    Attributes:
      workload: operations of one seed.
      memory: bytes, shared and per member of a pack.
      pack: members that train together at most for speed's sake; None: as many as fit.
      checkpoint: bytes of one seed's checkpoint.
      pilot: what is done before training to choose the step, once for the configuration; None: the step is given.
      programs: equal for configurations that run the same compiled programs.
    """

    workload: Workload
    memory: "MemoryNeed"
    pack: int | None
    checkpoint: int
    pilot: Workload | None = None
    programs: str = ""

    def estimate_seconds(self, members: int, cores: int) -> float:
        """Return the seconds of `members` seeds in a row of packs on `cores` cores."""
        operations, calls = self.workload.estimate_seconds()
        packs = -(-members // (self.pack or members))
        return START_SECONDS + packs * calls + members * operations / cores

    def estimate_pilot_seconds(self, members: int, cores: int) -> float:
        """Return the seconds of the pilot, which fills a pack of `members` so that it runs the pack's program."""
        if self.pilot is None:
            return 0.0
        operations, calls = self.pilot.estimate_seconds()
        return calls + min(members, self.pack or members) * operations / cores


def split_evenly(items: Sequence[int], largest: int) -> list[list[int]]:
    """Cut items into runs of almost equal length, none above `largest`."""
    parts = -(-len(items) // largest)
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [list(items[first:last]) for first, last in itertools.pairwise(bounds)]
