"""Compiled programs of a few networks stay in memory, and no more."""

import jax

from ntklens.jobs import compute
from problems import make_problem


def test_programs_are_dropped_before_those_of_one_network_more(monkeypatch):
    dropped = []
    monkeypatch.setattr(jax, "clear_caches", lambda: dropped.append(len(compute._compiled)))
    monkeypatch.setattr(compute, "KEPT", 2)
    monkeypatch.setattr(compute, "_compiled", [])
    first, second, third = (make_problem(width)[0] for width in (2, 3, 4))
    for trainer in (first, second, first, second):
        compute._note_compiled(trainer)
    assert not dropped
    for trainer in (third, first, third):
        compute._note_compiled(trainer)
    assert dropped == [2]
    compute._note_compiled(second)
    assert dropped == [2, 2]
