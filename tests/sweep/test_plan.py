"""From configurations to tasks."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ntklens.config.schemas import GIB
from ntklens.errors import InputError
from ntklens.jobs.process import PROCESS_BYTES
from ntklens.launch.planning import count_networks
from ntklens.report.sweep_table import describe_plan
from ntklens.store.units import Unit
from ntklens.sweep.cost import COMPILE_SECONDS, PROCESS_SECONDS, TRAINING_RATE, Cost, Workload, split_evenly
from ntklens.sweep.cutting import SHORTEST_TASK, TASKS_PER_WORKER, calibrate, check_checkpoints, make_tasks
from ntklens.sweep.plan import (
    Calibration,
    Capacity,
    Configuration,
    Plan,
    Slice,
    Task,
    decode_ranges,
    encode_ranges,
    merge_configurations,
)
from ntklens.training.memory import MemoryNeed


def make_capacity(workers, memory):
    return Capacity(workers, 1, memory / workers, memory)


EXACT = Calibration(1.0, 1.0, 1)


def make_configuration(name="run", seeds=range(4), states=None, **settings):
    seeds = list(seeds)
    states = states or ["queued"] * len(seeds)
    plain = {
        "retry": False,
        "replace": False,
        "model": {"width": 8},
        "ntk": {"memory_limit": None},
        "checkpoint": {"minutes": 5, "grace": 10},
    } | settings
    units = [Unit(seed, state, {}) for seed, state in zip(seeds, states, strict=True)]
    return Configuration(OmegaConf.create(plain), Path("multirun") / "name" / name, name, {}, seeds, [], units)


def make_cost(seconds=10.0, shared=0, per_member=GIB, pack=None, checkpoint=0):
    """Of `seconds` a seed on one core."""
    return Cost(Workload(seconds * TRAINING_RATE, 0, 0, 0, 0), MemoryNeed(shared, per_member), pack, checkpoint)


def test_what_is_finished_or_failed_is_left_out():
    configuration = make_configuration(states=["done", "diverged", "failed", "interrupted"])
    (task,) = make_tasks([configuration], [make_cost()], EXACT, make_capacity(2, 32 * GIB))
    assert [piece.seeds for piece in task.slices] == [[3]]
    configuration.cfg.retry = True
    assert configuration.find_pending() == [2, 3]


def test_what_replace_asks_for_is_pending_until_it_is_invalidated():
    configuration = make_configuration(states=["done", "diverged", "failed", "queued"], replace=True)
    assert configuration.find_pending() == [0, 1, 3]
    configuration.invalidated = True
    assert configuration.find_pending() == [3]


@settings(deadline=None)  # of time that a busy machine takes
@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 1e4), st.integers(1, 3 * GIB)), min_size=1, max_size=20),
    st.integers(1, 8),
)
def test_every_pending_seed_is_in_exactly_one_task_and_the_tasks_fit(runs, workers):
    configurations = [make_configuration(f"run{k}", range(n)) for k, (n, _, _) in enumerate(runs)]
    costs = [make_cost(seconds, 0, size) for _, seconds, size in runs]
    memory = workers * 2 * GIB + 4 * GIB
    tasks = make_tasks(configurations, costs, EXACT, make_capacity(workers, memory))
    planned = sorted((piece.configuration, seed) for task in tasks for piece in task.slices for seed in piece.seeds)
    assert planned == [(k, seed) for k, (n, _, _) in enumerate(runs) for seed in range(n)]
    assert all(task.memory <= max(memory / workers, PROCESS_BYTES + 3 * GIB) for task in tasks)
    assert [task.seconds for task in tasks] == sorted((task.seconds for task in tasks), reverse=True)
    total = sum(cost.estimate_seconds(n, 1) for cost, (n, _, _) in zip(costs, runs, strict=True))
    target = max(total / (TASKS_PER_WORKER * workers), SHORTEST_TASK)
    one_seed = max(cost.estimate_seconds(1, 1) for cost in costs)
    assert max(task.seconds for task in tasks) <= target + one_seed + 1e-6


def test_cheap_configurations_share_a_task_in_their_order():
    configurations = [make_configuration(f"run{k}") for k in range(16)]
    tasks = make_tasks(configurations, [make_cost(0.01)] * 16, EXACT, make_capacity(2, 32 * GIB))
    assert len(tasks) == 2
    for task in tasks:
        numbers = [piece.configuration for piece in task.slices]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_seed_that_does_not_fit_is_refused_but_can_be_planned():
    arguments = ([make_configuration()], [make_cost(per_member=9 * GIB)], EXACT, make_capacity(1, 8 * GIB))
    with pytest.raises(InputError, match=r"model.width=8: one seed of width 8 needs about 9.44 GiB"):
        make_tasks(*arguments)
    assert make_tasks(*arguments, refuse=False)[0].memory > 8 * GIB


def test_a_seed_larger_than_a_workers_share_gets_a_task_that_says_so():
    tasks = make_tasks([make_configuration()], [make_cost(per_member=6 * GIB)], EXACT, make_capacity(4, 16 * GIB))
    assert {task.memory for task in tasks} == {PROCESS_BYTES + 6 * GIB}


def test_estimates_are_corrected_by_what_was_measured():
    cost = make_cost(10.0)
    expected = cost.estimate_seconds(4, 2)
    measured = make_configuration()
    measured.units = [Unit(seed, "done", {"seconds": 3 * expected, "packed": 4}) for seed in range(4)]
    other = make_configuration("other")
    other.units = [Unit(seed, "done", {"seconds": 3.3 * expected, "packed": 4}) for seed in range(4)]
    calibration = calibrate([measured, other], [cost, cost], 2)
    assert calibration.packs == 2
    assert calibration.factor == pytest.approx(3.15, rel=0.01)
    assert 1.04 < calibration.error < 1.1
    assert calibrate([make_configuration()], [cost], 2) == Calibration(1.0, 3.0, 0)


def test_the_plan_states_what_starting_and_compiling_take():
    """Once per network that no finished configuration ran; workers share the compiling."""
    names, costs = ("done", "alike", "first", "second", "third"), []
    for programs in ("a", "a", "b", "c", "c"):
        costs.append(make_cost()._replace(programs=programs))
    configurations = [make_configuration(name, states=["done" if name == "done" else "queued"] * 4) for name in names]
    networks = count_networks(configurations, costs)
    assert networks == 2
    plan = Plan(Path("multirun/name"), "", tuple(configurations), (Task([Slice(1, [0], 5.0)], 5.0, GIB),))
    assert plan.start_seconds == PROCESS_SECONDS
    for workers, rounds in ((1, 2), (2, 1)):
        started = replace(plan, networks=networks, workers=workers).start_seconds
        assert started == PROCESS_SECONDS + rounds * COMPILE_SECONDS
    assert replace(plan, tasks=()).start_seconds == 0
    configurations[0].cfg.training = {"stop_after": None}
    line = describe_plan(replace(plan, configurations=(configurations[0],), networks=2, available=2 * GIB))[-1]
    assert "about 5 s (× or ÷ 1, from counted operations alone) beside 15 s to start and compile 2 networks" in line


def test_a_checkpoint_too_large_to_write_in_time_is_refused():
    configuration = make_configuration()
    costs = [make_cost(1.0, checkpoint=GIB)]
    tasks = make_tasks([configuration], costs, EXACT, make_capacity(1, 32 * GIB))
    check_checkpoints([configuration], costs, tasks, 1, lambda: GIB)  # four seconds
    with pytest.raises(InputError, match=r"checkpoint.grace=10: .* 4 GiB and take about 40 s"):
        check_checkpoints([configuration], costs, tasks, 1, lambda: GIB / 10)
    configuration.cfg.checkpoint.minutes = None
    check_checkpoints([configuration], costs, tasks, 1, lambda: GIB / 10)
    costs = [make_cost(100.0, checkpoint=GIB)]
    two = [Task([Slice(index, [0, 1, 2, 3], 100.0)], 100.0, 32 * GIB) for index in range(2)]
    configuration.cfg.checkpoint.minutes = 5
    check_checkpoints([configuration] * 2, costs * 2, two, 1, lambda: GIB / 2)  # eight seconds
    with pytest.raises(InputError, match="2 processes are 8 GiB"):  # at the same time, on one disk
        check_checkpoints([configuration] * 2, costs * 2, two, 2, lambda: GIB / 2)
    alone = [make_cost(1.0, checkpoint=GIB, pack=1)]  # one after another: one checkpoint at a time
    configuration.cfg.checkpoint.minutes = 5
    with pytest.raises(InputError, match="1 GiB"):
        check_checkpoints([configuration], alone, tasks, 1, lambda: GIB / 100)


def test_small_checkpoints_are_written_without_measuring_the_disk():
    configuration, costs = make_configuration(), [make_cost(checkpoint=1000)]
    tasks = make_tasks([configuration], costs, EXACT, make_capacity(1, 32 * GIB))
    check_checkpoints([configuration], costs, tasks, 1, lambda: 1 / 0)


def test_configurations_of_one_run_are_merged():
    first, second = make_configuration(seeds=range(3)), make_configuration(seeds=range(2, 6))
    first.axes, second.axes = {"seed": 0, "model.width": 8}, {"seed": 2, "model.width": 8}
    (merged,) = merge_configurations([first, second])
    assert merged.seeds == list(range(6))
    assert merged.axes == {"model.width": 8}


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_the_same_integers(numbers):
    ordered = sorted(numbers)
    assert decode_ranges(encode_ranges(ordered)) == ordered


@given(st.lists(st.integers(), min_size=1, max_size=50), st.integers(1, 60))
def test_parts_are_almost_equal(items, largest):
    parts = split_evenly(items, largest)
    assert [item for part in parts for item in part] == items
    sizes = [len(part) for part in parts]
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == math.ceil(len(items) / largest)
