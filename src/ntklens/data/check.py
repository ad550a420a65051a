"""From a configuration to its Dataset, checked: an error names the dataset, before training."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
from omegaconf import DictConfig

from ntklens.config.construct import construct
from ntklens.config.options import name_choice
from ntklens.data.dataset import Dataset, Split
from ntklens.data.split import compute_checksum
from ntklens.errors import InputError

SPLITS = ("train", "selection", "test", "probe")
OURS = "ntklens.data."  # loaders whose checksum is believed
LARGEST_TOKEN = 2**31 - 1


def load_checked(node: DictConfig) -> Dataset:
    """Call a dataset's loader and check what it returns.

    Args:
        node: the configuration's `dataset`.

    Returns:
        The Dataset, its arrays NumPy's, its labels int32, and its provenance plain values with a checksum.

    Raises:
        InputError: naming the dataset, whatever its loader raised or returned.
    """  # noqa: DOC501
    try:
        dataset = construct(node)
    except InputError as error:
        text = str(error)
        raise InputError(f"dataset.{text}" if text.startswith("_target_=") else text) from error
    except Exception as error:  # a loader of the user's own raises anything
        raise _refuse(node, f"{type(error).__name__}: {_first_line(error)}") from error
    return check_dataset(dataset, node)


def check_dataset(dataset: Any, node: DictConfig) -> Dataset:
    """Return what a loader returned in the form that `Dataset` documents.

    Args:
        dataset: what it returned.
        node: the configuration's `dataset`, for messages.

    Raises:
        InputError: naming the dataset and what is wrong with it.
    """  # noqa: DOC501
    if not isinstance(dataset, Dataset):
        raise _refuse(node, f"returned {_describe_type(dataset)}, not a ntklens.data.Dataset")
    classes = dataset.classes
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 2:
        raise _refuse(node, f"classes={classes!r}: must be the number of classes, 2 or more")
    splits = {name: _check_split(getattr(dataset, name), name, int(classes), node) for name in SPLITS}
    shapes = {name: (split.inputs.shape[1:], _describe_kind(split)) for name, split in splits.items()}
    for name, (shape, kind) in shapes.items():
        if shape != shapes["train"][0]:
            raise _refuse(node, f"samples of {name} have shape {shape}, those of train {shapes['train'][0]}")
        if kind != shapes["train"][1]:
            raise _refuse(node, f"inputs of {name} are {kind}, those of train {shapes['train'][1]}")
    if not isinstance(dataset.provenance, dict):
        raise _refuse(node, f"provenance is {_describe_type(dataset.provenance)}, not a dict")
    provenance = json.loads(json.dumps(dataset.provenance, default=_make_plain))
    if not str(node._target_).startswith(OURS):
        checksum, claimed = compute_checksum(*splits.values()), provenance.get("checksum")
        provenance |= {"checksum": checksum} | ({"loader_checksum": claimed} if claimed not in (None, checksum) else {})
    return replace(dataset, name=str(dataset.name), classes=int(classes), provenance=provenance, **splits)


def _check_split(split: Any, name: str, classes: int, node: DictConfig) -> Split:
    if not isinstance(split, Split):
        raise _refuse(node, f"{name} is {_describe_type(split)}, not a ntklens.data.Split")
    if isinstance(split.inputs, dict | list | tuple) and not _is_rectangular(split.inputs):
        raise _refuse(
            node,
            f"inputs of {name} are {_describe_type(split.inputs)}: ntklens takes one array [n, …]; put the parts side "
            "by side in it and take them apart in the model",
        )
    for part in ("inputs", "labels"):
        if np.ma.is_masked(getattr(split, part)):
            raise _refuse(node, f"{part} of {name} are a masked array, whose mask would be lost: fill it")
    inputs, labels = np.asarray(split.inputs), np.asarray(split.labels)
    real = inputs.dtype.kind == "f" or inputs.dtype.name == "bfloat16"
    if not real and inputs.dtype.kind not in "iub":
        raise _refuse(node, f"inputs of {name} are {inputs.dtype}: must be real numbers, or integers such as tokens")
    if inputs.ndim < 1 or labels.ndim < 1:
        raise _refuse(node, f"{name} holds no samples: its inputs have shape {inputs.shape}, its labels {labels.shape}")
    if labels.ndim > 1:
        hint = "; take labels[:, 0]" if labels.shape[1:] == (1,) else ""
        hint = hint or ("; of one-hot rows take labels.argmax(axis=1)" if labels.ndim == 2 else "")
        raise _refuse(node, f"labels of {name} have shape {labels.shape}: must be [n], a class each{hint}")
    if len(inputs) != len(labels):
        raise _refuse(node, f"{name} has {len(labels)} labels for {len(inputs)} inputs")
    if not len(labels):
        raise _refuse(node, f"{name} is empty; it needs a sample")
    if real and not np.isfinite(inputs).all():
        wrong = ~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
        raise _refuse(
            node,
            f"inputs of {name} hold NaN or infinity in {wrong.sum()} of {len(inputs)} samples, the first "
            f"{np.flatnonzero(wrong)[0]}",
        )
    if real and inputs.dtype.itemsize > 4 and inputs.size and np.abs(inputs).max() > np.finfo(np.float32).max:
        raise _refuse(node, f"inputs of {name} hold numbers beyond float32, 3.4e38: scale them")
    if inputs.dtype.kind in "iu" and inputs.size and max(int(inputs.max()), -int(inputs.min())) > LARGEST_TOKEN:
        raise _refuse(node, f"inputs of {name} hold integers beyond 32 bits")
    return Split(inputs, _check_labels(labels, name, classes, node))


def _check_labels(labels: np.ndarray, name: str, classes: int, node: DictConfig) -> np.ndarray:
    wanted = f"must be integers 0 … {classes - 1}, the classes"
    if labels.dtype.kind not in "iub":
        kind = "real numbers" if labels.dtype.kind == "f" else str(labels.dtype)
        raise _refuse(node, f"labels of {name} are {kind} (the first: {labels[0]!s:.40}): {wanted}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        hint = ""
        if set(np.unique(labels).tolist()) == {-1, 1}:
            hint = "; take (labels + 1) // 2"
        elif low == 1 and high == classes:
            hint = "; subtract 1"
        raise _refuse(node, f"labels of {name} lie in {low} … {high}, with classes={classes}: {wanted}{hint}")
    return labels.astype(np.int32)


def _is_rectangular(inputs: Any) -> bool:
    """Return whether nested lists make one array of numbers."""
    if isinstance(inputs, dict):
        return False
    try:
        return np.asarray(inputs).dtype.kind in "fiub"
    except ValueError:
        return False


def _describe_kind(split: Split) -> str:
    return "integers" if split.holds_tokens else "real numbers"


def _make_plain(value: Any) -> Any:
    """Return a plain value for what JSON does not know: a provenance must not cost a trained run."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def _describe_type(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _refuse(node: DictConfig, reason: str) -> InputError:
    return InputError(f"{name_choice('dataset', node._target_)}: {reason}")
