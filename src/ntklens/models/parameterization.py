"""How weights are drawn, multiplied and stepped with the width: one table.

With r = width / base_width, a leaf of a layer with fan-in n is drawn with variance r^variance / n (biases: zero),
enters the forward pass times r^multiplier, and Adam and AdamW step it by their rate times r^adam. SGD and momentum have
one rate for all leaves. So the kernel of the parameters is the one that trains under gradient descent. At r = 1 the
three are one network with one training, to the bit.

| | function at the start | change of f per step | change of the hidden layers per step |
|---|---|---|---|
| standard | independent of the width | grows with the width | grows with the width, but for the first layer |
| ntk | independent of the width | independent of the width | falls as 1 / √width |
| mup | falls as 1 / √width | independent of the width | independent of the width |

`ntk` carries the standard network of `base_width` to other widths with the distributions of its function and of its
kernel kept; Jacot's original is base_width = 1 with a further 1/√d on the input layer. Its column `adam` follows from
steps that look like signs: the input layer needs ΔW ∝ m^(−1/2), a hidden one m^(−3/2), the readout 1/m.

Sources: Jacot et al. 2018 (1806.07572) and Sohl-Dickstein et al. 2020 (2001.07301, the base width) for ntk; Yang & Hu
2021 (2011.14522) and Yang et al. 2022 (2203.03466, table 3: Adam) for mup; Everett et al. 2024 (2407.05872), exponents
per layer. In the form without multipliers mup has variances 1/d, 1/m, 1/(m r), and SGD rates r (input kernel and hidden
biases), 1, 1/r (readout kernel), 1 (readout bias).
"""

from typing import Literal, NamedTuple

from ntklens.errors import InputError


class Rule(NamedTuple):
    """Exponents of r = width / base_width for one kind of leaf.

    Attributes:
        variance: of the parameter, times 1 / fan_in.
        multiplier: in the forward pass.
        adam: of the rate of Adam and AdamW.
    """

    variance: float = 0.0
    multiplier: float = 0.0
    adam: float = 0.0


# The kinds of leaves. Biases of the input layer are those of hidden units too.
INPUT, HIDDEN, READOUT = "input kernel", "hidden kernel", "readout kernel"
HIDDEN_BIAS, READOUT_BIAS = "hidden bias", "readout bias"
STANDARD = "standard"
Parameterization = Literal["standard", "ntk", "mup"]

TABLE: dict[str, dict[str, Rule]] = {
    # kind of leaf:         variance  multiplier  adam
    STANDARD: {
        INPUT: Rule(),  # W ~ truncated normal of variance 1 / fan_in (LeCun et al. 1998), b = 0
        HIDDEN: Rule(),
        READOUT: Rule(),
        HIDDEN_BIAS: Rule(),
        READOUT_BIAS: Rule(),
    },
    "ntk": {
        INPUT: Rule(0.0, 0.0, -0.5),
        HIDDEN: Rule(1.0, -0.5, -1.0),  # variance r / fan_in = 1 / base_width
        READOUT: Rule(1.0, -0.5, -0.5),
        HIDDEN_BIAS: Rule(0.0, 0.0, -0.5),
        READOUT_BIAS: Rule(0.0, 0.0, 0.0),
    },
    "mup": {
        INPUT: Rule(-1.0, 0.5, -0.5),
        HIDDEN: Rule(0.0, 0.0, -1.0),
        READOUT: Rule(0.0, -0.5, -0.5),  # effective variance 1 / (fan_in r), that is ∝ 1 / width²
        HIDDEN_BIAS: Rule(0.0, 0.5, -0.5),
        READOUT_BIAS: Rule(0.0, 0.0, 0.0),
    },
}

# Exponent of r in the scale of attention's scores, beside 1/√d of heads of dimension d: mup's is ∝ 1/d, since queries
# and keys align while they learn (Yang et al. 2022, definition 4.1).
ATTENTION = {STANDARD: 0.0, "ntk": 0.0, "mup": -0.5}


def get_parameterization(name: str) -> dict[str, Rule]:
    """Return the rules of the parameterisation called `name`, by kind of leaf.

    Raises:
        InputError: if there is none.
    """
    if name not in TABLE:
        raise InputError(f"model.parameterization={name}: must be one of {', '.join(TABLE)}")
    return TABLE[name]
