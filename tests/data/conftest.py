"""Small datasets written in the published formats, and a loopback server to download them from."""

import functools
import gzip
import hashlib
import http.server
import pickle
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

MNIST_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
BATCH_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


@dataclass(frozen=True)
class Small:
    """A small dataset on disk: its root, its folder, and what a loader should find there (uint8 images, labels)."""

    root: Path
    folder: Path
    images: np.ndarray
    labels: np.ndarray
    held_out_images: np.ndarray
    held_out_labels: np.ndarray


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has an empty cache, no NTKLENS_DATA, and no proxy between it and the loopback server."""
    monkeypatch.setenv("NTKLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NTKLENS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def encode_idx(array: np.ndarray, code: int = 0x08) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()


def encode_batch(images: np.ndarray, labels: list[int], dtype: str = "u1") -> bytes:
    """A batch as published: keys of bytes, rows of 1024 red, 1024 green, 1024 blue bytes, numpy's old module names."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1).astype(dtype)
    batch = {b"batch_label": b"a small batch", b"labels": list(map(int, labels)), b"data": rows, b"filenames": []}
    return pickle.dumps(batch, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def draw_samples(seed: int, size: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (
        generator.integers(0, 256, (size, *shape), dtype=np.uint8),
        generator.permutation(np.arange(size) % 10).astype(np.uint8),
    )


@pytest.fixture
def small_mnist(tmp_path) -> Small:
    images, labels = draw_samples(0, 60, (28, 28))
    held_out_images, held_out_labels = draw_samples(1, 40, (28, 28))
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name, array in zip(MNIST_NAMES, (images, labels, held_out_images, held_out_labels), strict=True):
        (folder / name).write_bytes(gzip.compress(encode_idx(array), mtime=0))
    return Small(folder.parent, folder, images, labels, held_out_images, held_out_labels)


@pytest.fixture
def small_cifar(tmp_path) -> Small:
    images, labels = draw_samples(2, 50, (32, 32, 3))
    held_out_images, held_out_labels = draw_samples(3, 40, (32, 32, 3))
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate(BATCH_NAMES[:5]):
        rows = slice(10 * number, 10 * number + 10)
        (folder / name).write_bytes(encode_batch(images[rows], labels[rows]))
    (folder / "test_batch").write_bytes(encode_batch(held_out_images, held_out_labels))
    return Small(tmp_path / "data", folder, images, labels, held_out_images, held_out_labels)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Return a function that serves a folder on the loopback interface and returns its address."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(_Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def compute_md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def formats():
    """The encoders and the published names, for tests that write damaged files."""

    class Formats:
        mnist_names = MNIST_NAMES
        batch_names = BATCH_NAMES
        encode_idx = staticmethod(encode_idx)
        encode_batch = staticmethod(encode_batch)
        compute_md5 = staticmethod(compute_md5)

    return Formats
