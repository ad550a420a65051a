"""MNIST: handwritten digits of 28 × 28 pixels, 60000 for training and 10000 held out."""

from typing import Unpack

from ntklens.data.dataset import Dataset
from ntklens.data.files import RemoteFile
from ntklens.data.idx import load_idx_dataset
from ntklens.data.split import SplitOptions, complete_options

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = tuple(
    RemoteFile(name, md5, tuple(mirror + name for mirror in MIRRORS))
    for name, md5 in (
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    )
)
CONTENT = "25f10be26c409e5b46aef344f43b38f9c65422c2b74ccc8ba66b79d24d7890f8"  # of the published samples, decoded


def load(
    *,
    root: str | None = None,
    name: str = "mnist",
    input_dim: int | None = None,
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Load MNIST from `mnist/` below the root, or torchvision's `MNIST/raw`.

    What is absent is downloaded. Inputs are pixel/255.

    Args:
        root: where to look; None means NTKLENS_DATA, else ntklens's cache.
        name: name in messages and results.
        input_dim: dimension of the inputs, see `dimension.change_dimension`; None leaves images as they are.
        **options: see `SplitOptions`; by default 100 training samples.

    Returns:
        Dataset with inputs [n, 28, 28, 1], or [n, input_dim], and 10 classes.

    Raises:
        InputError: files that are absent and cannot be downloaded, or are damaged; sizes that ask for too much.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998), Gradient-based learning applied to document recognition.
    """
    return load_idx_dataset(
        folder="mnist",
        files=FILES,
        content=CONTENT,
        root=root,
        name=name,
        input_dim=input_dim,
        options=complete_options(options, train_size=100),
    )
