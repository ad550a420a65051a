import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.release
def test_dry_run_at_toy_size(tmp_path):
    """Every row of the parts that need no job is measured, and float32 kernels are within their bound."""
    command = [sys.executable, SCRIPT, "--toy", "--parts", "agreement", "spectrum", "memory", "--output", tmp_path]
    subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=True, capture_output=True, timeout=900)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {part: content["outcome"] for part, content in parts.items()} == dict.fromkeys(parts, "status 0")
    rows = [row for content in parts.values() for row in content["rows"]]
    assert not [row for row in rows if "error" in row or "skipped" in row]
    assert all(row["within"] for row in rows if "within" in row)


@pytest.mark.slow
def test_what_fails_is_a_row_and_time_is_kept(tmp_path):
    """Without time left nothing is begun, and the file says so."""
    command = [sys.executable, SCRIPT, "--toy", "--parts", "jobs", "--budget-seconds", "5", "--output", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["parts"]["jobs"]["outcome"].startswith("skipped")
