import jax
import pytest

from ntklens.training.memory import MemoryNeed, count_bytes, find_cgroup_memory, find_free_memory


def test_counts_what_fits():
    assert MemoryNeed(100, 10).count_members(135) == 3
    assert MemoryNeed(100, 10).count_members(50) == 0


def test_free_memory_is_some_of_the_machine():
    assert 2**20 < find_free_memory() < 2**50


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_counts_bytes(dtype):
    assert count_bytes([jax.ShapeDtypeStruct((3, 4), dtype)]) == 12 * (4 if dtype == "float32" else 1)


def test_limits_of_the_own_control_group_and_of_those_above_count(tmp_path):
    root, job = tmp_path / "cgroup", tmp_path / "cgroup" / "slurm" / "job_1"
    job.mkdir(parents=True)
    for folder, limit, used in ((root / "slurm", "max", 5), (job, "1000", 400), (root / "other", "10", 1)):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/elsewhere\n0::/slurm/job_1\n")
    assert find_cgroup_memory(root, membership) == [600]
    (root / "slurm" / "memory.max").write_text("505\n")
    assert find_cgroup_memory(root, membership) == [600, 500]
    assert find_cgroup_memory(root, tmp_path / "nowhere") == []
