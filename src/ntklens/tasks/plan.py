"""task=plan: print what a launch would do."""

import json
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ntklens.config.lines import get_words
from ntklens.launch.local.launch import LocalLaunch
from ntklens.launch.planning import make_configuration, make_plans
from ntklens.report.console import make_console
from ntklens.report.sweep_table import build_plan_table, describe_plan
from ntklens.sweep.plan import Plan


def show_plan(cfg: DictConfig) -> int:
    """task=plan without -m: print the plan of one configuration, and write nothing."""
    configuration = make_configuration(cfg, list(HydraConfig.get().overrides.task), {})
    return print_plans(make_plans([configuration], get_words(), LocalLaunch(), refuse=False), cfg.task.format)


def print_plans(plans: Sequence[Plan], style: str) -> int:
    """Print plans as tables or as JSON, and return the exit status."""
    if style == "json":
        described = [plan.to_json() for plan in plans]
        print(json.dumps(described[0] if len(described) == 1 else described, indent=1))
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
