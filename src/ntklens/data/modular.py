"""Modular: all pairs of a ∘ b mod p as sequences of three tokens, split at random; nothing is downloaded."""

from collections.abc import Callable
from typing import Literal, Unpack

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import Pool, SplitOptions, build_dataset, check_seed, complete_options
from ntklens.errors import InputError

LARGEST = 1024  # classes; of more than 128 the kernel is that of projected outputs
PROBE_SIZE = 32  # by default: Θ has (N C)² entries
Operation = Literal["add", "subtract", "multiply", "divide"]
OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
}
DIVIDE = "divide"


def load(
    *,
    modulus: int = 31,
    operation: Operation = "add",
    train_fraction: float = 0.5,
    split_seed: int = 0,
    name: str = "modular",
    **options: Unpack[SplitOptions],
) -> Dataset:
    """List the pairs (a, b) of residues, with c = a ∘ b mod p as the label of the sequence a, b, =.

    p² pairs, p (p − 1) where ∘ divides. `split_seed` puts them in an order; the first `train_fraction` of it is the
    pool of training samples, the rest is held out. Tokens 0 … p − 1 are residues, p is the mark "=".

    Args:
        modulus: p, at most 1024; a prime where ∘ divides.
        operation: ∘: add, subtract, multiply or divide.
        train_fraction: fraction of the pairs that may be trained on.
        split_seed: draws the order of the pairs.
        name: name in messages and results.
        **options: see `SplitOptions`; by default the whole pool is trained on, 32 samples are the probe, and all that
            it leaves of what is held out tests.

    Returns:
        Dataset with inputs int32 [n, 3] and p classes.

    Raises:
        InputError: a value that is no such number, or asks for more than there is.

    Source: A. Power et al. 2022 (2201.02177), Grokking.
    """
    complete = complete_options({"probe_size": PROBE_SIZE, **options})
    if operation not in (*OPERATIONS, DIVIDE):
        raise InputError(f"dataset.operation={operation}: must be one of {', '.join((*OPERATIONS, DIVIDE))}")
    if not 2 <= modulus <= LARGEST:
        raise InputError(f"dataset.modulus={modulus}: must be 2 … {LARGEST}")
    if operation == DIVIDE and any(modulus % divisor == 0 for divisor in range(2, modulus)):
        raise InputError(f"dataset.modulus={modulus}: dataset.operation={DIVIDE} needs a prime")
    if not 0 < train_fraction < 1:
        raise InputError(f"dataset.train_fraction={train_fraction:g}: must lie between 0 and 1")
    check_seed("split_seed", split_seed)

    a, b = (pair.ravel() for pair in np.indices((modulus, modulus)))
    if operation == DIVIDE:
        a, b = a[b > 0], b[b > 0]
        inverse = np.array([pow(int(one), -1, modulus) for one in b])
        labels = a * inverse % modulus
    else:
        labels = OPERATIONS[operation](a, b) % modulus
    inputs = np.stack([a, b, np.full_like(a, modulus)], axis=1).astype(np.int32)
    order = np.random.default_rng(split_seed).permutation(len(labels))
    middle = max(1, round(train_fraction * len(labels)))
    train, held_out = (Pool(inputs[rows], labels[rows].astype(np.int32)) for rows in (order[:middle], order[middle:]))
    return build_dataset(
        name=name,
        train=train,
        held_out=held_out,
        classes=modulus,
        scale=1,
        source={
            "source": f"{operation} modulo {modulus}, {train_fraction:g} of the pairs, seed {split_seed}",
            "files": {},
        },
        tokens=True,
        **complete,
    )
