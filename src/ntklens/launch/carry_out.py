"""Carries out a plan round by round, beside other launches of the same sweep."""

import sys
import time

from rich.console import Console

from ntklens.launch.base import Launch
from ntklens.launch.planning import make_plan
from ntklens.signals import Stop
from ntklens.store.locks import find_locked
from ntklens.sweep.plan import Plan, look_up_units

WAIT_SECONDS = 0.5  # between two looks at what another launch computes


def carry_out(plan: Plan, launch: Launch, stop: Stop, console: Console) -> None:
    """Launch a plan; then wait for what another launch computes, and take over what it, or a dead worker, left."""
    announced = False
    before = count_pending(plan)
    while True:
        waited = not launch.run(plan, stop, console)
        for configuration in plan.configurations:
            configuration.retried = True
        while True:
            look_up_units(plan.configurations)
            pending = count_pending(plan)
            if not pending or _find_free(plan):
                break
            if not announced:
                print(f"{pending} seeds are computed by another launch: waiting for it", file=sys.stderr)
            announced = waited = True
            stop.check()
            time.sleep(WAIT_SECONDS)
        if not pending or (pending >= before and not waited):  # a launch that changes nothing is not repeated
            return
        before = pending
        plan = make_plan(plan.folder, plan.command, plan.configurations, launch)


def _find_free(plan: Plan) -> bool:
    """Return whether something pending is locked by nobody; a state lags behind, and a launch locks a whole slice."""
    for configuration in plan.configurations:
        pending = set(configuration.find_pending())
        if pending and pending - find_locked(configuration.run, pending):
            return True
    return False


def count_pending(plan: Plan) -> int:
    """Return how many seeds of a plan are to be computed."""
    return sum(len(configuration.find_pending()) for configuration in plan.configurations)
