"""Fashion-MNIST: grey images of clothes of 28 × 28 pixels, 60000 for training and 10000 held out."""

from ntklens.data.dataset import Dataset
from ntklens.data.files import RemoteFile
from ntklens.data.idx import load_idx_dataset

MIRRORS = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
FILES = tuple(
    RemoteFile(name, md5, tuple(mirror + name for mirror in MIRRORS))
    for name, md5 in (
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
)
CONTENT = "9a25bc43bb355e6281f69a4e2dac26ca719ac53cf1ce861ae23796ac58fb67d6"  # of the published samples, decoded


def load(
    *,
    root: str | None = None,
    train_size: int | None = 100,
    test_size: int | None = None,
    probe_size: int = 128,
    data_seed: int | None = None,
    standardize: bool = False,
    name: str = "fashion_mnist",
) -> Dataset:
    """Load Fashion-MNIST from `fashion_mnist/` below the root, or torchvision's `FashionMNIST/raw`.

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

    Source: H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv 1708.07747.
    """
    return load_idx_dataset(
        folder="fashion_mnist",
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
