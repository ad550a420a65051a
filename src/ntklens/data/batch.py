"""Batches of CIFAR-10, which are published as pickles: read without running anything that a pickle may name.

Source: A. Krizhevsky, The CIFAR-10 dataset, "Dataset layout".
"""

import io
import pickle
from typing import Any

import numpy as np

CLASSES = 10
SHAPE = (3, 32, 32)


class BatchError(ValueError):
    """What is wrong with a batch, in the words that follow the name of its file."""


def decode_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Decode one batch.

    Args:
        content: the bytes of a published batch file.

    Returns:
        Images, uint8 [n, 32, 32, 3], and labels, uint8 [n].

    Raises:
        BatchError: the pickle is damaged, names anything but a plain array, or holds other than such a batch.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except BatchError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any error
        raise BatchError(f"is truncated or corrupted ({type(error).__name__}: {error})") from error
    if not isinstance(batch, dict) or b"data" not in batch or b"labels" not in batch:
        raise BatchError("does not hold data and labels")
    images = _restore_images(batch[b"data"])
    labels = batch[b"labels"]
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise BatchError("has labels that are no list of integers")
    if len(labels) != len(images):
        raise BatchError(f"has {len(labels)} labels for {len(images)} images")
    if not labels:
        raise BatchError("holds no images")
    if min(labels) < 0 or max(labels) >= CLASSES:
        wrong = min(labels) if min(labels) < 0 else max(labels)
        raise BatchError(f"has a label {wrong}, outside 0 … {CLASSES - 1}")
    return images, np.array(labels, dtype=np.uint8)


def _restore_images(data: Any) -> np.ndarray:
    if not isinstance(data, _Array) or not isinstance(data.dtype, _Dtype):
        raise BatchError("has data that are no array")
    if data.dtype.code not in (b"u1", "u1"):
        raise BatchError(f"has data of type {data.dtype.code!r}, not uint8")
    pixels = int(np.prod(SHAPE))
    if not isinstance(data.shape, tuple) or len(data.shape) != 2 or data.shape[1] != pixels:
        raise BatchError(f"has data of shape {data.shape}, not (images, {pixels})")
    size = data.shape[0] * pixels
    if not isinstance(data.content, bytes) or len(data.content) != size:
        raise BatchError(f"does not have the {size} bytes of data that its shape says")
    flat = np.frombuffer(data.content, np.uint8).reshape(data.shape, order="F" if data.fortran else "C")
    return np.ascontiguousarray(flat.reshape(-1, *SHAPE).transpose(0, 2, 3, 1))


class _Dtype:
    """Stands for numpy.dtype in a pickle: keeps the code, does nothing."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray in a pickle: keeps what would fill it, allocates nothing."""

    dtype: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state


def _encode_latin1(text: str, encoding: str) -> bytes:
    # Python 3 writes bytes so in protocol 2; other codecs would decompress or worse.
    if encoding != "latin1":
        raise BatchError(f"is no batch of CIFAR-10: it asks for the codec {encoding!r}")
    return text.encode("latin1")


_STANDINS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode_latin1,
}


class _BatchUnpickler(pickle.Unpickler):
    """Knows the five names that an array of bytes needs, and gives none of them its real object."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STANDINS:
            raise BatchError(f"is no batch of CIFAR-10: it asks for {module}.{name}, which is not loaded")
        return _STANDINS[module, name]
