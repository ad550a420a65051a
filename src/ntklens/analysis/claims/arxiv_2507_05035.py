"""Beyond Scaling Curves: Internal Dynamics of Neural Networks Through the NTK Lens (Nikolaou et al. 2025).

Rules fixed before looking. "constant": the interval of α within ±0.05; "≈ 0.5": −α in 0.4 … 0.6; "∝ m": 0.9 … 1.1;
"−0.7 … −0.8": −0.9 … −0.6; "grows", "falls": wholly beyond ±0.05. "as a power law" and, since 0.2.0, "constant": the
points must not bend either.
"""

import math

from ntklens.analysis.claims.paper import Agreement, Condition, Exponent, Paper, Saturation, Scale
from ntklens.analysis.groups import DATA, WIDTH
from ntklens.stats.powerlaw import CONSTANT

LIMITS = (500.0, 1000.0)  # the transition widths stated
DEEP = 3  # hidden layers from which on a network counts as deep
ENOUGH = 8192  # training samples beyond which data no longer limit what the width gains
BETA, RANK = "trace_ratio", "minimum_effective_rank"

PAPER = Paper(
    name="arXiv 2507.05035",
    statements=(
        Exponent(
            "L_min falls with width as a power law, exponent ≈ 0.5", WIDTH, "minimum_loss", -0.6, -0.4, compare=ENOUGH,
            power=True,
        ),
        Exponent("Tr Θ_0 grows in proportion to the width", WIDTH, "initial_trace", 0.9, 1.1),
        Exponent("χ is constant in the width", WIDTH, "adaptation_rate", -CONSTANT, CONSTANT, sign=-1),
        Exponent("Γ(Θ_min) grows with the width", WIDTH, RANK, CONSTANT, math.inf),
        Exponent("β falls with width as a power law, exponent −0.7 … −0.8", WIDTH, BETA, -0.9, -0.6, power=True),
        Saturation("Γ(Θ_min) saturates with width", WIDTH, RANK),
        Scale("the transition width read from β lies at 500–1000", WIDTH, BETA, *LIMITS),
        Scale("the transition width read from Γ lies at 500–1000", WIDTH, RANK, *LIMITS),
        Agreement(
            "β and Γ agree on the transition for deeper networks, and differ for shallow ones", WIDTH, BETA, RANK, DEEP
        ),
        Exponent("L_min falls with data as a power law, exponent ≈ 0.5", DATA, "minimum_loss", -0.6, -0.4, power=True),
        Exponent("Tr Θ_0 is constant in the amount of data", DATA, "initial_trace", -CONSTANT, CONSTANT),
        Exponent("χ grows in magnitude with the amount of data", DATA, "adaptation_rate", CONSTANT, math.inf, sign=-1),
        Exponent("Γ(Θ_min) falls with the amount of data", DATA, RANK, -math.inf, -CONSTANT),
    ),
    conditions=(
        Condition("dense network", "model._target_", ("MLP",), "model=mlp"),
        Condition("ReLU", "model.activation", ("relu",), "model.activation=relu"),
        Condition("LeCun initialisation", "model.parameterization", ("standard",), "model.parameterization=standard"),
        Condition(
            "MNIST, Fashion-MNIST or CIFAR-10", "dataset._target_", ("mnist", "fashion_mnist", "cifar10"),
            "dataset=mnist, fashion_mnist or cifar10",
        ),
    ),
    ranges={
        (WIDTH, "mnist"): (32, 8192),
        (WIDTH, "fashion_mnist"): (32, 8192),
        (WIDTH, "cifar10"): (256, 16384),
        (DATA, "mnist"): (128, 16384),
        (DATA, "fashion_mnist"): (128, 16384),
        (DATA, "cifar10"): (128, 16384),
    },
    protocol={
        "training.loss": "cross_entropy",
        "training.batch_size": None,
        "optimizer._target_": "optax.adam",
        "model.bias": True,
        "dataset.standardize": False,
        "dataset.input_dim": None,
        "model.output_scale": None,
    },
    along={WIDTH: {DATA: 100}, DATA: {WIDTH: 8, "model.depth": 4}},
    not_stated="the step, how depth is counted, the epochs",
    commands={
        (WIDTH, ""):
            "python -m ntklens.run -m experiment=mnist_width model.width=32,64,128,256,512,1024,2048",
        (WIDTH, "fashion_mnist"):
            "python -m ntklens.run -m experiment=mnist_width dataset=fashion_mnist name=fashion_mnist_width "
            "model.width=32,64,128,256,512,1024,2048",
        (WIDTH, "cifar10"): "python -m ntklens.run -m experiment=cifar10_transition",
        (DATA, ""): "python -m ntklens.run -m experiment=mnist_data",
        (DATA, "fashion_mnist"):
            "python -m ntklens.run -m experiment=mnist_data dataset=fashion_mnist name=fashion_mnist_data",
        (DATA, "cifar10"): "python -m ntklens.run -m experiment=mnist_data dataset=cifar10 name=cifar10_data",
    },
)  # fmt: skip
