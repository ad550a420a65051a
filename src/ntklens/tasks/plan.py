"""task=plan: print what a launch would do."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ntklens.config.lines import get_words
from ntklens.config.task import task
from ntklens.launch.base import Launch
from ntklens.launch.local.launch import LocalLaunch
from ntklens.launch.planning import make_configuration, make_plans
from ntklens.report.console import make_console
from ntklens.report.sweep_table import build_plan_table, describe_plan, describe_surprises
from ntklens.sweep.plan import Configuration, Plan


def show_plans(configurations: Sequence[Configuration], words: Sequence[str], launch: Launch | None, *_: Any) -> int:
    """task=plan with -m: print the plans of a sweep, and write nothing."""
    plans = make_plans(configurations, words, launch or LocalLaunch(), refuse=False)
    return print_plans(plans, configurations[0].cfg.task.format)


@task(sweep=show_plans)
def show_plan(cfg: DictConfig) -> int:
    """task=plan without -m: print the plan of one configuration, and write nothing."""
    configuration = make_configuration(cfg, list(HydraConfig.get().overrides.task), {})
    return show_plans([configuration], get_words(), None)


def print_plans(plans: Sequence[Plan], style: str) -> int:
    """Print plans as tables or as JSON, and return the exit status."""
    if style == "json":
        described = [plan.to_json() for plan in plans]
        print(json.dumps(described[0] if len(described) == 1 else described, indent=1))
        for line in dict.fromkeys(line for plan in plans for line in describe_surprises(plan)):
            print(line, file=sys.stderr)
        return 0
    console = make_console()
    for plan in plans:
        console.print(build_plan_table(plan))
        print_plan_summary(plan, console)
    return 0


def print_plan_summary(plan: Plan, console: Console) -> None:
    """Print a plan's totals."""
    for line in describe_plan(plan):
        console.print(line)
