"""Data: one loader per file, one type out."""

from ntklens.data.dataset import Dataset, Split
from ntklens.data.split import Pool, SplitOptions, build_dataset

__all__ = ["Dataset", "Pool", "Split", "SplitOptions", "build_dataset"]
