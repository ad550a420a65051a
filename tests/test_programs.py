"""Compiled programs that tests keep: used, bounded, and no trouble where they cannot be kept."""

import os
import time
from pathlib import Path

import jax

import programs


def test_this_process_and_those_it_starts_keep_programs():
    place = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert jax.config.values["jax_compilation_cache_dir"] == str(place)
    jax.jit(lambda x: x * time.time())(1.0)  # a program that no run had before
    assert any(path.stat().st_mtime > time.time() - 60 for path in place.iterdir())


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "file").touch()
    place = Path(programs.share(tmp_path / "file" / "programs")["JAX_COMPILATION_CACHE_DIR"])
    assert place.is_dir()
    assert not place.is_relative_to(tmp_path)


def test_the_programs_used_longest_ago_are_removed(tmp_path):
    for age in range(8):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    programs.prune(tmp_path, limit=800)
    assert len(list(tmp_path.iterdir())) == 8
    programs.prune(tmp_path, limit=799)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-cache", "1-cache", "2-cache"]
