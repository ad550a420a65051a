import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ntklens.data import cifar10, mnist
from ntklens.data.files import RemoteFile, download_files, find_cache, find_root
from ntklens.errors import InputError

SIZES = {"train_size": 30, "probe_size": 8}


@pytest.fixture
def closed_port():
    """An address of the loopback interface where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/"


@pytest.fixture
def publish(monkeypatch, formats):
    """Return a function that lets mnist be published with the small files' checksums at given addresses."""

    def change(small, *addresses):
        files = [
            RemoteFile(name, formats.compute_md5(small.folder / name), tuple(address + name for address in addresses))
            for name in formats.mnist_names
        ]
        monkeypatch.setattr(mnist, "FILES", tuple(files))
        return files

    return change


def test_absent_files_are_downloaded_once(small_mnist, serve, publish, tmp_path, capfd):
    publish(small_mnist, serve(small_mnist.folder))
    root = tmp_path / "new"
    first = mnist.load(root=str(root), **SIZES)
    assert first.provenance["checksum"] == mnist.load(root=str(small_mnist.root), **SIZES).provenance["checksum"]
    names = {path.name for path in small_mnist.folder.iterdir()}
    assert {path.name for path in (root / "mnist").iterdir()} == names
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in (root / "mnist").iterdir())
    publish(small_mnist)  # nowhere: a second load must not ask
    assert mnist.load(root=str(root), **SIZES).provenance == first.provenance
    assert capfd.readouterr() == ("", "")  # no progress where stderr is no terminal


def test_only_what_is_absent_is_downloaded(small_mnist, serve, publish):
    publish(small_mnist, serve(small_mnist.folder.parent.parent / "published"))
    (small_mnist.root.parent / "published").mkdir()
    name = "t10k-labels-idx1-ubyte.gz"
    (small_mnist.folder / name).rename(small_mnist.root.parent / "published" / name)
    mnist.load(root=str(small_mnist.root), **SIZES)
    assert (small_mnist.folder / name).exists()


def test_second_address_is_tried(small_mnist, serve, publish, closed_port, tmp_path):
    (tmp_path / "empty").mkdir()
    publish(small_mnist, closed_port, serve(tmp_path / "empty"), serve(small_mnist.folder))
    assert len(mnist.load(root=str(tmp_path / "new"), **SIZES).train) == 30


def test_no_network(closed_port, small_mnist, publish, tmp_path):
    publish(small_mnist, closed_port)
    root = tmp_path / "new"
    with pytest.raises(InputError) as caught:
        mnist.load(root=str(root), **SIZES)
    assert str(caught.value) == (
        f"dataset.root={root}: mnist is not there and could not be downloaded (no connection to 127.0.0.1);"
        " put mnist/*-ubyte.gz there or set NTKLENS_DATA"
    )
    assert not root.exists()


def test_cifar_without_network(closed_port, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "ARCHIVE", RemoteFile(cifar10.ARCHIVE.name, "0" * 32, (closed_port + "x",)))
    with pytest.raises(InputError) as caught:
        cifar10.load(root=str(tmp_path / "new"), **SIZES)
    assert str(caught.value).endswith(
        "cifar10 is not there and could not be downloaded (no connection to 127.0.0.1); put"
        " cifar10/cifar-10-batches-py/ or cifar10/cifar-10-python.tar.gz there or set NTKLENS_DATA"
    )


def test_server_without_the_file(small_mnist, serve, publish, tmp_path):
    (tmp_path / "empty").mkdir()
    publish(small_mnist, serve(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"could not be downloaded \(127.0.0.1 answers 404\)"):
        mnist.load(root=str(tmp_path / "new"), **SIZES)


def test_wrong_checksum_leaves_nothing(small_mnist, serve, publish, tmp_path):
    publish(small_mnist, serve(small_mnist.folder))
    path = small_mnist.folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="sent has another checksum than the published one"):
        mnist.load(root=str(tmp_path / "new"), **SIZES)
    assert [path.name for path in (tmp_path / "new" / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_root_that_is_no_folder(small_mnist, serve, publish, tmp_path):
    publish(small_mnist, serve(small_mnist.folder))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"^dataset.root={tmp_path}/file: mnist is not there and .* \(.*\); put"):
        mnist.load(root=str(tmp_path / "file"), **SIZES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_root_that_cannot_be_written(small_mnist, serve, publish, tmp_path):
    publish(small_mnist, serve(small_mnist.folder))
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(InputError, match=r"could not be downloaded \(no permission to write there\)"):
        mnist.load(root=str(tmp_path / "locked"), **SIZES)


def test_many_jobs_may_download_at_once(small_mnist, serve, publish, tmp_path):
    files = publish(small_mnist, serve(small_mnist.folder))
    code = (
        "import pathlib, sys, time\n"
        "from ntklens.data.files import RemoteFile, download_files\n"
        f"files = [RemoteFile(*values) for values in {[(file.name, file.md5, file.urls) for file in files]}]\n"
        "import pooch, requests\n"
        f"print('ready', flush=True); sys.stdin.readline()\n"
        f"download_files('mnist', files, pathlib.Path({str(tmp_path / 'new' / 'mnist')!r}), 'x')\n"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    for job in jobs:
        job.communicate(timeout=60)
        assert job.returncode == 0
    for file in files:
        assert (tmp_path / "new" / "mnist" / file.name).read_bytes() == (small_mnist.folder / file.name).read_bytes()
    assert len(list((tmp_path / "new" / "mnist").iterdir())) == 4


def test_progress_is_drawn_on_a_terminal(small_mnist, serve, publish, tmp_path):
    files = publish(small_mnist, serve(small_mnist.folder))
    code = (
        "import pathlib\n"
        "from ntklens.data.files import RemoteFile, download_files\n"
        f"files = [RemoteFile(*values) for values in {[(file.name, file.md5, file.urls) for file in files]}]\n"
        f"download_files('mnist', files, pathlib.Path({str(tmp_path / 'new' / 'mnist')!r}), 'x')\n"
    )
    outer, inner = os.openpty()
    job = subprocess.Popen([sys.executable, "-c", code], stderr=inner, env=os.environ | {"TERM": "xterm"})
    os.close(inner)
    seen = b""
    try:
        while part := os.read(outer, 4096):
            seen += part
    except OSError:  # how a pseudo-terminal says that the other side is gone
        pass
    os.close(outer)
    assert job.wait(timeout=60) == 0
    assert b"train-images-idx3-ubyte.gz" in seen
    assert "━".encode() in seen


def test_nothing_to_download_needs_no_folder(tmp_path):
    download_files("mnist", [], tmp_path / "new", "x")
    assert not (tmp_path / "new").exists()


def test_places(tmp_path, monkeypatch):
    assert find_root(None) == find_cache() == tmp_path / "cache"
    monkeypatch.setenv("NTKLENS_DATA", "~/published")
    assert find_root(None) == Path.home() / "published"
    assert find_root(str(tmp_path)) == tmp_path
    assert find_root("relative") == Path.cwd() / "relative"
    monkeypatch.delenv("NTKLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert find_cache() == tmp_path / "home" / "ntklens"


@pytest.mark.parametrize("root", ["", 3, True])
def test_root_must_be_a_path(root):
    with pytest.raises(InputError, match=r"^dataset\.root=.*: must be the path of a folder$"):
        find_root(root)


def test_published_checksums_and_addresses_are_well_formed():
    for file in (*mnist.FILES, cifar10.ARCHIVE):
        assert len(bytes.fromhex(file.md5)) == 16
        assert all(url.endswith("/" + file.name) for url in file.urls)
