"""Earlier import paths: they lead, with a warning, to what has moved."""

import pickle
import pydoc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ntklens
from ntklens import _moved


@pytest.mark.parametrize(
    ("earlier", "today"),
    [
        ("ntklens.tracking.Tracker", "ntklens.jobs.tracker.Tracker"),
        ("ntklens.tracking.wandb.WandbTracker", "ntklens.wandb.tracker.WandbTracker"),
        ("ntklens.analysis.load.load", "ntklens.store.load.load"),
        ("ntklens.analysis.transition.compare_transitions", "ntklens.analysis.transitions.compare_transitions"),
        ("ntklens.trajectory.SCHEMA_VERSION", "ntklens.config.identity.SCHEMA_VERSION"),
        ("ntklens.tasks.job.do_task", "ntklens.launch.slurm.job.do_task"),
    ],
)
@pytest.mark.filterwarnings("ignore:ntklens.* has moved:DeprecationWarning")
def test_an_earlier_path_leads_to_what_has_moved(earlier, today):
    assert pydoc.locate(earlier) is pydoc.locate(today) is not None


@pytest.mark.filterwarnings("ignore:ntklens.* has moved:DeprecationWarning")
def test_a_job_that_waits_in_a_queue_finds_its_function():
    from ntklens.launch.slurm.job import do_task

    assert pickle.loads(b"cntklens.tasks.job\ndo_task\n.") is do_task


def test_every_earlier_path_has_a_place_and_is_free():
    for earlier, places in _moved.MOVED.items():
        for place in places:
            import_module(f"ntklens.{place}")
        assert not any(
            path.exists()
            for base in ntklens.__path__
            for path in [_path(base, earlier).with_suffix(".py"), _path(base, earlier) / "__init__.py"]
        )


def _path(base, module):
    return Path(base, *module.split(".")[1:])


def test_an_earlier_path_warns_and_lacks_what_never_was():
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "try: import ntklens.trajectory\n"
        "except DeprecationWarning as warning: print(warning)\n"
        "warnings.simplefilter('ignore'); import ntklens.trajectory\n"
        "try: ntklens.trajectory.nothing\n"
        "except AttributeError as error: print(error)\n"
        "try: import ntklens.nothing\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [
        "ntklens.trajectory has moved: ntklens.store.trajectory, ntklens.recording.trajectory, "
        "ntklens.recording.quantities, ntklens.config.identity",
        "module 'ntklens.trajectory' has no attribute 'nothing'",
        "No module named 'ntklens.nothing'",
    ]
