"""What a job does when it is asked to end; SLURM's commands here only note what they are given."""

import os
import signal

import pytest

from ntklens.launch.slurm.job import end_early
from ntklens.signals import Stop


@pytest.fixture
def live(tmp_path, monkeypatch, capsys):
    """Ends one life of a job, and returns whether it went back into the queue, and what it printed."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $* >>{tmp_path}/asked\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)

    def end(life, progressed):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(life))
        stop = Stop()
        stop.request(signal.SIGUSR2)
        with pytest.raises(SystemExit):
            end_early(stop, 0, progressed)
        asked = tmp_path / "asked"
        requeued = asked.exists() and asked.read_text() == "requeue 12\n"
        asked.unlink(missing_ok=True)
        return requeued, capsys.readouterr().err

    return end


def test_only_idle_lives_in_a_row_are_a_reason_to_give_up(live, tmp_path):
    for life in range(7):  # however many there were before
        assert live(life, progressed=life % 3 == 0)[0]
    assert live(7, progressed=True)[0]
    assert not list(tmp_path.glob("*_idle.json"))
    assert [live(life, progressed=False)[0] for life in (8, 9, 9, 10)] == [True] * 4  # two processes of one life
    requeued, output = live(11, progressed=False)
    assert not requeued
    assert "nothing was gained in 4 lives in a row; raise the launcher's minutes" in output
