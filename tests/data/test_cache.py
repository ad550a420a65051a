import gzip
import os
import subprocess
import sys

import numpy as np
import pytest

from ntklens.data import idx, mnist
from ntklens.data.cache import compute_sha256, load_decoded

SIZES = {"train_size": 30, "probe_size": 8, "data_seed": 1}


@pytest.fixture
def load(small_mnist):
    return lambda: mnist.load(root=str(small_mnist.root), **SIZES)


@pytest.fixture
def count_reads(monkeypatch):
    """Counts how many source files are decoded."""
    reads = []
    original = idx.read_idx
    monkeypatch.setattr(idx, "read_idx", lambda path: reads.append(path) or original(path))
    return reads


def get_entry(tmp_path):
    (entry,) = (tmp_path / "cache" / "decoded").iterdir()
    return entry


def is_same(one, other):
    parts = ("train", "selection", "test", "probe")
    pairs = [(getattr(one, part), getattr(other, part)) for part in parts]
    return one.provenance == other.provenance and all(
        (a.inputs == b.inputs).all() and (a.labels == b.labels).all() for a, b in pairs
    )


def test_warm_cache_gives_the_same_without_decoding(load, count_reads, small_mnist):
    cold = load()
    assert len(count_reads) == 4
    assert is_same(load(), cold)
    assert len(count_reads) == 4
    digests = {path.name: compute_sha256(path) for path in small_mnist.folder.iterdir()}
    assert cold.provenance["files"] == digests


def test_warm_arrays_are_mapped_and_read_only(load, small_mnist, formats):
    load()
    paths = [small_mnist.folder / name for name in formats.mnist_names]
    decoded = load_decoded("mnist", paths, lambda: pytest.fail("decoded again"))
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in decoded.arrays.values())


def test_changed_source_is_decoded_again(load, count_reads, small_mnist, formats):
    load()
    path = small_mnist.folder / "train-labels-idx1-ubyte.gz"
    state = path.stat()
    path.write_bytes(gzip.compress(formats.encode_idx((small_mnist.labels + 1) % 10), mtime=0))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    changed = load()
    assert len(count_reads) == 8
    assert changed.provenance["files"][path.name] == compute_sha256(path)


def test_same_files_elsewhere_do_not_share_an_entry(load, count_reads, small_mnist, tmp_path):
    first = load()
    small_mnist.root.rename(tmp_path / "moved")
    moved = mnist.load(root=str(tmp_path / "moved"), **SIZES)
    assert len(count_reads) == 8
    assert moved.provenance["checksum"] == first.provenance["checksum"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train_images.npy", lambda content: content[:-1]),
        ("train_images.npy", lambda content: b""),
        ("train_images.npy", lambda content: b"\0" * len(content)),
        ("train_labels.npy", lambda content: content.replace(b"(60,)", b"(59,)")),
        ("train_labels.npy", lambda content: content.replace(b"|u1", b"|i1")),
        ("index.json", lambda content: content[:-1]),
        ("index.json", lambda content: b"[]"),
        ("index.json", lambda content: b"{}"),
        ("index.json", lambda content: b"\xff"),
        ("index.json", lambda content: b'{"arrays": [], "files": 1}'),
    ],
)
def test_damaged_entry_is_replaced(load, count_reads, tmp_path, name, damage):
    good = load()
    path = get_entry(tmp_path) / name
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    assert is_same(load(), good)
    assert len(count_reads) == 8
    assert is_same(load(), good)
    assert len(count_reads) == 8
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["index.json", "held_out_images.npy"])
def test_incomplete_entry_is_replaced(load, count_reads, tmp_path, name):
    good = load()
    (get_entry(tmp_path) / name).unlink()
    assert is_same(load(), good)
    assert (get_entry(tmp_path) / name).exists()


def test_cache_that_cannot_be_made_is_done_without(load, count_reads, tmp_path):
    (tmp_path / "cache").touch()
    assert is_same(load(), load())
    assert len(count_reads) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_cache_that_cannot_be_written_is_done_without(load, count_reads, tmp_path):
    (tmp_path / "cache" / "decoded").mkdir(parents=True)
    (tmp_path / "cache" / "decoded").chmod(0o555)
    assert is_same(load(), load())
    assert len(count_reads) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_root_may_be_read_only(load, small_mnist):
    small_mnist.folder.chmod(0o555)
    assert is_same(load(), load())
    small_mnist.folder.chmod(0o755)


def test_nothing_temporary_stays(load, tmp_path):
    load()
    assert [path.name.startswith("mnist-") for path in (tmp_path / "cache" / "decoded").iterdir()] == [True]


@pytest.mark.parametrize("damaged", [False, True])
def test_many_jobs_may_start_at_once(load, small_mnist, tmp_path, damaged):
    if damaged:
        load()
        (get_entry(tmp_path) / "train_images.npy").write_bytes(b"")
    code = (
        "import sys\n"
        "from ntklens.data import mnist\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        f"for _ in range(5): print(mnist.load(root={str(small_mnist.root)!r}, **{SIZES}).provenance['checksum'])\n"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    outputs = [job.communicate(timeout=60)[0].split() for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 6
    assert {checksum for output in outputs for checksum in output} == {load().provenance["checksum"]}
    assert sum(map(len, outputs)) == 30
    assert get_entry(tmp_path)  # one entry, nothing temporary
