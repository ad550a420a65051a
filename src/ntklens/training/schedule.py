"""At which updates a run is looked at."""

import numpy as np


def make_geometric_steps(last: int, ratio: float) -> np.ndarray:
    """Return 0, 1, 2, … up to `last`, each at most the factor `ratio` (or one update) beyond the one before.

    s_{k+1} = max(s_k + 1, ⌊ratio · s_k⌋), and `last` itself at the end.

    Args:
      last: the last update.
      ratio: largest factor between neighbours, above 1.

    Returns:
      Increasing integers, shape [K].
    """
    steps = [0]
    while steps[-1] < last:
        steps.append(min(last, max(steps[-1] + 1, int(ratio * steps[-1]))))
    return np.array(steps)


def choose_sparse(steps: np.ndarray, ratio: float) -> np.ndarray:
    """Return which of `steps` lie at least the factor `ratio` beyond the one chosen before.

    Args:
      steps: increasing integers that begin with 0, shape [K].
      ratio: smallest factor between neighbours, above 1.

    Returns:
      Booleans, shape [K]; the first and the last are true.
    """
    chosen = np.zeros(len(steps), bool)
    due = 0.0
    for index, step in enumerate(steps):
        if step >= due:
            chosen[index] = True
            due = max(step + 1, step * ratio)
    if not chosen[-1] and (last := np.flatnonzero(chosen)[-1]) > 0:
        chosen[last] = False  # the last one takes its place
    chosen[-1] = True
    return chosen
