"""MNIST: handwritten digits of 28 × 28 pixels, 60000 for training and 10000 held out."""

from ntklens.data.dataset import Dataset
from ntklens.data.files import RemoteFile
from ntklens.data.idx import load_idx_dataset

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
    train_size: int | None = 100,
    test_size: int | None = None,
    probe_size: int = 128,
    data_seed: int | None = None,
    standardize: bool = False,
    name: str = "mnist",
) -> Dataset:
    """Load MNIST from `mnist/` below the root, or torchvision's `MNIST/raw`.

    What is absent is downloaded. Inputs are pixel/255.

    Args:
        root: where to look; None means NTKLENS_DATA, else ntklens's cache.
        train_size: number of training samples; None means all.
        test_size: number of test samples, both halves together; None means 2000, or all that is left if fewer.
        probe_size: number of samples the kernel is measured on.
        data_seed: None takes the first `train_size` samples; a number takes a random, class-balanced subset.
        standardize: subtract the mean and divide by the standard deviation (scalars) of the training subset.
        name: name in messages and results.

    Returns:
        Dataset with inputs [n, 28, 28, 1] and 10 classes.

    Raises:
        InputError: files that are absent and cannot be downloaded, or are damaged; sizes that ask for too much.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998), Gradient-based learning applied to document recognition.
    """
    return load_idx_dataset(
        folder="mnist",
        files=FILES,
        content=CONTENT,
        root=root,
        train_size=train_size,
        test_size=test_size,
        probe_size=probe_size,
        data_seed=data_seed,
        standardize=standardize,
        name=name,
    )
