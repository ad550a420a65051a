"""What theory says of a network before training, for those networks that it holds for."""

import json
from typing import NamedTuple

import numpy as np

from ntklens.analysis.study import Study
from ntklens.report.chart import Series
from ntklens.report.charts.members import Members, average
from ntklens.store.stack import flatten_config

DENSE = "ntklens.models.mlp.MLP"
TRACE = "theory of Tr Θ_0: wide network"
RANK = "C Γ(K), K: Θ averaged over outputs"
POINTS = 60
REFERENCES = {  # for captions
    TRACE: "Dotted, at Tr Θ_0: the affine law of wide dense ReLU networks, from the inputs alone.",
    RANK: "Dash-dotted, at Γ_0: C Γ(K) with K = (1/C) Σ_c Θ_cc, measured on the same networks of finite width; Γ_0 and"
    " C Γ(K) are equal in the limit of infinite width alone.",
}


def predict_initial_trace(width: np.ndarray, depth: int, bias: bool, dim: float, square: float) -> np.ndarray:
    """Return Tr Θ_0 / (N C) of a dense ReLU network with LeCun normal weights and zero biases, up to O(1/width).

        2^{−(L−1)} [X (1 + (L−1) n/d) + 1] + 2 − 2^{−(L−2)}

    with L = depth + 1 layers of weights; without biases only the term with X.

    Args:
      width: n, units of each hidden layer, any shape.
      depth: hidden layers.
      bias: whether layers have biases.
      dim: d, of the inputs.
      square: X, the mean over the probe of |x|².
    """
    share = 2.0**-depth
    weights = share * square * (1 + depth * np.asarray(width, float) / dim)
    return weights + (share + 2 - 2 * share if bias else 0.0)


class Network(NamedTuple):
    """What the trace of a dense ReLU network depends on, and N · C."""

    width: int
    depth: int
    bias: bool
    dim: float
    square: float
    size: float

    def predict(self, width: float | np.ndarray) -> np.ndarray:
        """Return Tr Θ_0 of such a network of another width."""
        return self.size * predict_initial_trace(np.asarray(width), self.depth, self.bias, self.dim, self.square)


def draw_initial_trace(study: Study, group: Members, scale: float) -> list[Series]:
    """Return what theory predicts of Tr Θ_0 along the axis, times `scale`; nothing where it is not known."""
    networks = [network for run in group.runs if (network := _read_network(study, run))]
    if not group.axis or len(networks) < len(group.runs):
        return []
    x = np.unique(group.x)
    if group.axis == "model.width":
        x = np.geomspace(x[0], x[-1], POINTS)
        y = networks[0].predict(x)
    else:
        own = np.array([float(network.predict(network.width)) for network in networks])
        y = np.array([own[group.x == place].mean() for place in x])
    if not np.isfinite(y).all():
        return []
    return [Series(group.label, "reference", x, scale * y, detail="theory", meaning=TRACE)]


def _read_network(study: Study, run: str) -> Network | None:
    """Return the network of a run, if theory holds for it and its inputs are known."""
    if not {"input_dim", "probe_square", "N", "C"} <= set(study.data.variables):
        return None
    config, one = read_config(study, run), study.data.sel(run=run)
    if not is_dense(config) or config.get("model.activation") != "relu":
        return None
    dim, square, size = (
        float(average(values)[0]) for values in (one.input_dim.values, one.probe_square.values, (one.N * one.C).values)
    )
    width, depth = int(str(config["model.width"])), int(str(config["model.depth"]))
    return Network(width, depth, bool(config.get("model.bias", True)), dim, square, size)


def draw_initial_rank(study: Study, group: Members, traced: np.ndarray) -> list[Series]:
    """Return C Γ of the kernel averaged over outputs, equal to Γ_0 in the limit of infinite width, where Θ = K ⊗ I_C.

    Args:
      study: what was found.
      group: the runs.
      traced: Γ of (1/C) Σ_c Θ[(i,c),(j,c)] before training, shape [R, S].
    """
    if "C" not in study.data or not all(is_dense(read_config(study, run)) for run in group.runs) or not group.axis:
        return []
    outputs = study.data["C"].sel(run=group.runs).values
    values, x = outputs * traced, np.unique(group.x)
    y = np.array([average(values[group.x == place].ravel())[0] for place in x], float)
    if not np.isfinite(y).any():
        return []
    detail = "C Γ of the kernel averaged over outputs"
    return [Series(group.label, "reference", x, y, dashed=True, detail=detail, meaning=RANK)]


def is_dense(config: dict[str, object]) -> bool:
    """Return whether a network is a dense one whose weights have variance 1 / fan_in: the network of the theory."""
    plain = config.get("model.parameterization", "standard") == "standard" and config.get("model.output_scale") is None
    return config.get("model._target_") == DENSE and plain


def read_config(study: Study, run: str) -> dict[str, object]:
    """Return the configuration of a run, a key for each override; empty if it is not known."""
    if "config" not in study.data.coords:
        return {}
    text = str(study.data["config"].sel(run=run).item() or "")
    return dict(flatten_config(json.loads(text))) if text else {}
