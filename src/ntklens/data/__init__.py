"""Data: one loader per file, one type out."""

from ntklens.data.dataset import Dataset, Split

__all__ = ["Dataset", "Split"]
