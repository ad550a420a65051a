"""Fashion-MNIST: grey images of clothes of 28 × 28 pixels, 60000 for training and 10000 held out."""

from typing import Unpack

from ntklens.data.dataset import Dataset
from ntklens.data.files import RemoteFile
from ntklens.data.idx import load_idx_dataset
from ntklens.data.split import SplitOptions, complete_options

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
    name: str = "fashion_mnist",
    input_dim: int | None = None,
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Load Fashion-MNIST from `fashion_mnist/` below the root, or torchvision's `FashionMNIST/raw`.

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

    Source: H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv 1708.07747.
    """
    return load_idx_dataset(
        folder="fashion_mnist",
        files=FILES,
        content=CONTENT,
        root=root,
        name=name,
        input_dim=input_dim,
        options=complete_options(options, train_size=100),
    )
