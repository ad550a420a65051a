"""Functions f(params, x) → [N, C] on which every quantity of the kernel is tested."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Case:
    """`build()` → (f, params, x), in float64 under x64; `plain`: leaves expected to need their whole Jacobian."""

    name: str
    build: Callable[[], tuple[Any, Any, Any]]
    plain: tuple[str, ...] = ()
    neural_tangents: bool = True  # whether neural-tangents can compute it

    @functools.cache  # noqa: B019 (the cases live as long as the tests; one function object compiles once)
    def make(self):
        return self.build()


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def flatten(x):
    return x.reshape(x.shape[0], -1)


def build_flax(module, *shape, x=None):
    x = draw(0, *shape) if x is None else x
    variables = module.init(jax.random.key(1), x)
    # Zero biases and unit scales hide mistakes: move every parameter.
    leaves, tree = jax.tree.flatten(variables)
    return module.apply, jax.tree.unflatten(tree, [a + 0.1 * draw(k, *a.shape) for k, a in enumerate(leaves)]), x


Dense = partial(nn.Dense, param_dtype=jnp.float64)
Conv = partial(nn.Conv, param_dtype=jnp.float64)
LayerNorm = partial(nn.LayerNorm, param_dtype=jnp.float64, force_float32_reductions=False)


class MLP(nn.Module):
    width: int
    depth: int
    outputs: int = 3
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        x = flatten(x)
        for _ in range(self.depth):
            x = nn.relu(Dense(self.width, use_bias=self.bias)(x))
        return Dense(self.outputs, use_bias=self.bias)(x)


class Twice(nn.Module):
    """One Dense called twice."""

    @nn.compact
    def __call__(self, x):
        hidden = Dense(5)
        return Dense(3)(jnp.tanh(hidden(jnp.tanh(hidden(flatten(x))))))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(Conv(4, (3, 3), strides=2)(x))
        x = jnp.tanh(Conv(6, (3, 3), feature_group_count=2, kernel_dilation=2, use_bias=False)(x))
        x = jnp.tanh(nn.ConvTranspose(4, (2, 2), strides=(2, 2), param_dtype=jnp.float64)(x))
        return Dense(3)(x.mean((1, 2)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + self.param("position", nn.initializers.normal(), x.shape[1:], jnp.float64)[None]
        y = LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, param_dtype=jnp.float64)(y)
        x = x + Dense(x.shape[-1])(nn.gelu(Dense(7)(LayerNorm()(x))))
        return Dense(3)(x.mean(1))


class Language(nn.Module):
    """Embedding read by gather, tied to the output, with a remat block between."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(6, 4, param_dtype=jnp.float64)
        x = nn.remat(Dense)(4)(embed(tokens))
        return embed.attend(jnp.tanh(x).mean(1))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.GRUCell(4, param_dtype=jnp.float64))(x)
        return Dense(2)(x[:, -1])


class Heads(nn.Module):
    @nn.compact
    def __call__(self, x):
        heads = nn.vmap(
            Dense, in_axes=None, out_axes=1, axis_size=3, variable_axes={"params": 0}, split_rngs={"params": True}
        )
        return nn.tanh(heads(4)(flatten(x))).sum(-1)


def raw(f, seed=0, inputs=(4, 5), **shapes):
    """A function of a dictionary of arrays."""
    return f, {name: draw(seed + 1 + k, *shape) for k, (name, shape) in enumerate(shapes.items())}, draw(seed, *inputs)


@jax.custom_jvp
def leaky_square(w, x):
    return jnp.square(x @ w)


@leaky_square.defjvp
def _leaky_square_jvp(primals, tangents):
    (w, x), (dw, dx) = primals, tangents
    return leaky_square(w, x), 3 * (x @ dw + dx @ w)  # not the true derivative: the rule must be honoured


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))


def scan_stacked(p, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0] @ p["v"]


def convolve(x, w, strides=1, padding="SAME", spec="NHWC HWIO NHWC", **others):
    """A convolution of any rank by its JAX names."""
    strides = (strides,) * (x.ndim - 2) if isinstance(strides, int) else strides
    return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=tuple(spec.split()), **others)


def grouped_dilated(p, x):
    """Groups, dilation and padding that is odd, negative and larger than the filter."""
    x = jnp.tanh(convolve(x, p["w"], padding=((3, 2), (0, -1)), rhs_dilation=(2, 1), feature_group_count=2))
    x = jnp.tanh(convolve(x + p["b"][None, None, None], p["v"], (2, 1), ((1, 2), (2, 1)), rhs_dilation=(2, 3)))
    return jnp.tanh(convolve(x, p["u"], feature_group_count=4)).mean((1, 2)) @ p["d"]


def strided_channels_first(p, x):
    """Strides of different length, one longer than its filter, channels before the positions."""
    x = convolve(x, p["w"], (2, 1), ((1, 2), (0, 1)), "NHWC OIHW NCHW")
    x = convolve(jax.nn.relu(x + p["b"][None, :, None, None]), p["v"], (3, 2), ((2, 0), (1, 1)), "NCHW OIHW NCHW")
    return jnp.tanh(x).mean((2, 3)) @ p["d"]


def filter_used_twice(p, x):
    """One filter at two strides, dilations and inputs, and one in its transposed form, too."""
    x = jnp.tanh(convolve(x, p["w"]))
    y = jnp.tanh(convolve(x, p["w"], 2, rhs_dilation=(1, 1)))
    z = jnp.tanh(convolve(x, -p["w"], 2) + convolve(x, p["w"], 2, rhs_dilation=(2, 2)))
    y = convolve(
        jnp.tanh(convolve(y + z, p["v"])), p["v"].swapaxes(2, 3), lhs_dilation=(2, 2), padding=((2, 1), (1, 2))
    )
    return jnp.tanh(y).sum((1, 2)) @ p["d"]


def one_position_one_feature(p, x):
    x = jnp.tanh(convolve(x, p["w"], padding="VALID"))  # one feature
    x = jnp.tanh(convolve(x, p["v"], padding="VALID") + p["b"][None, None, None])  # one position
    return x[:, 0, 0] @ p["d"]


def three_dimensions(p, x):
    x = jax.nn.relu(convolve(x, p["w"], 2, spec="NDHWC DHWIO NDHWC"))
    return jnp.tanh(convolve(x, p["v"], spec="NDHWC DHWIO NDHWC")).mean((1, 2, 3)) @ p["d"]


def filters_made_of_leaves(p, x):
    """A filter masked, one standardised, one cut out of a leaf and one that depends on the sample."""
    x = jnp.tanh(convolve(x, p["m"] * MASK[:3, :3, None, None]))
    x = jnp.tanh(convolve(x, (p["s"] - p["s"].mean()) / (1 + jnp.std(p["s"])), 2))
    x = jnp.tanh(convolve(x, p["c"][0]) + convolve(x, p["c"][1][::-1]))
    own = jax.vmap(lambda x: convolve(x[None], x.mean((0, 1))[None, None, None] * p["c"][0], 2)[0])(x)
    return own.mean((1, 2))


def residual_heads(p, x):
    """The gradient of the residual sum's end is the same for all samples, that within the branches is not."""
    x = convolve(x, p["w"])
    y = x + 0.5 * convolve(jax.nn.gelu(x), p["v"])
    y = y + jax.nn.relu(jnp.einsum("nhwk,kf->nhwf", y, p["u"]) + p["b"][None, None, None])
    y = y + jax.nn.silu(jnp.einsum("nhwk,kf->nhwf", jnp.sin(y), p["t"])) * p["g"][None, None, None]
    return y.mean((1, 2)) @ p["d"] + p["e"][None]


def false_heads(p, x):
    """What looks like a readout whose gradient no sample changes, and is none."""
    x = jnp.tanh(convolve(x, p["w"]))
    weights = jax.nn.softmax(x.sum(-1).reshape(x.shape[0], -1)).reshape(x.shape[:3])
    y = clipped(jnp.tanh(convolve(x, p["v"]))).sum((1, 2)) @ p["d"]
    y += (jnp.tanh(convolve(x, p["u"])) * weights[..., None]).sum((1, 2)) @ p["d"]
    y += (jnp.tanh(convolve(x, p["t"])) * MASK[None, :5, :6, None]).sum((1, 2)) @ p["d"]
    y += jnp.sort(convolve(x, p["s"]), axis=1)[:, 0].mean(1) @ p["d"]
    return y


def activation_of_whole_leaves(p, x):
    """Between the convolution and the mean stand functions of leaves that are differentiated whole."""
    y = convolve(x, p["w"]) * jnp.cos(p["s"])[None, None, None] + jnp.tanh(p["b"])[None, None, None]
    return jax.nn.silu(y).mean((1, 2)) @ p["d"]


def bias_along_positions(p, x):
    """As many positions as features: a bias may belong to either."""
    x = jnp.tanh(jnp.einsum("ntk,kf->ntf", x, p["w"]) + p["b"][None, :, None])
    x = jnp.tanh(jnp.einsum("ntk,kf->ntf", x, p["v"]) - p["b2"][None, None, :])
    return (x * p["g"][None, :, None] * p["h"][None, None]).sum(1)


def list_mlp():
    params = [(draw(1, 5, 6), draw(2, 6)), (draw(3, 6, 6), draw(4, 6)), (draw(5, 6, 3), draw(6, 3))]

    def f(params, x):
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b[None])
        w, b = params[-1]
        return x @ w + b[None]

    return f, params, draw(0, 4, 5)


def many_layers():
    """More than ten layers, whose alphabetical order is not their order."""
    params = {f"Dense_{k}": {"kernel": draw(k + 1, 3, 3)} for k in range(12)}

    def f(params, x):
        for k in range(12):
            x = jnp.tanh(x @ params[f"Dense_{k}"]["kernel"])
        return x

    return f, params, draw(0, 3, 3)


def with_integers():
    def f(p, x):
        return x @ p["w"] * 2.0 ** p["power"].astype(x.dtype)

    return f, {"w": draw(1, 5, 3), "power": jnp.asarray(2)}, draw(0, 4, 5)


def dead_relu():
    def f(p, x):
        return jax.nn.relu(jnp.abs(x) @ -jnp.abs(p["w"])) @ p["v"]

    return raw(f, w=(5, 4), v=(4, 3))


MASK = np.random.default_rng(9).integers(0, 2, (5, 6)).astype(np.float64)

CASES = [
    *[
        Case(
            f"mlp depth {depth} {'with' if bias else 'without'} bias",
            partial(build_flax, MLP(6, depth, bias=bias), 4, 2, 3),
        )
        for depth in (1, 2, 3, 4)
        for bias in (True, False)
    ],
    Case("mlp one output", partial(build_flax, MLP(6, 2, outputs=1), 4, 5)),
    Case("mlp one sample", partial(build_flax, MLP(6, 2), 1, 5)),
    Case("mlp module shorthand", lambda: (MLP(6, 2), *build_flax(MLP(6, 2), 4, 5)[1:])),
    Case("list of weights and biases", list_mlp),
    Case("twelve layers", many_layers),
    Case("dense called twice", partial(build_flax, Twice(), 4, 5)),
    Case("cnn", partial(build_flax, CNN(), 3, 8, 8, 2)),
    Case(
        "grouped and dilated convolution",
        partial(
            raw,
            grouped_dilated,
            inputs=(2, 7, 6, 2),
            w=(3, 2, 1, 4),
            b=(4,),
            v=(2, 2, 4, 4),
            u=(3, 3, 1, 4),
            d=(4, 2),
        ),
    ),
    Case(
        "strided convolution, channels first",
        partial(
            raw,
            strided_channels_first,
            inputs=(3, 9, 8, 2),
            w=(4, 2, 3, 2),
            b=(4,),
            v=(5, 4, 2, 3),
            d=(5, 2),
        ),
    ),
    Case(
        "a filter used twice",
        partial(raw, filter_used_twice, inputs=(2, 6, 5, 3), w=(3, 3, 3, 3), v=(2, 3, 3, 3), d=(3, 2)),
    ),
    Case(
        "convolution of one sample, one feature, one position",
        partial(raw, one_position_one_feature, inputs=(1, 5, 5, 2), w=(3, 3, 2, 1), v=(3, 3, 1, 3), b=(3,), d=(3, 2)),
    ),
    Case(
        "convolution in three dimensions",
        partial(raw, three_dimensions, inputs=(2, 5, 4, 3, 2), w=(3, 2, 2, 2, 3), v=(2, 2, 2, 3, 2), d=(2, 2)),
    ),
    Case(
        "filters made of leaves",
        partial(raw, filters_made_of_leaves, inputs=(2, 5, 5, 2), m=(3, 3, 2, 2), s=(2, 2, 2, 2), c=(2, 2, 2, 2, 2)),
        plain=("s",),
    ),
    Case(
        "residual sums before a mean",
        partial(
            raw,
            residual_heads,
            inputs=(3, 4, 4, 2),
            w=(3, 3, 2, 3),
            v=(3, 3, 3, 3),
            u=(3, 3),
            b=(3,),
            t=(3, 3),
            g=(3,),
            d=(3, 4),
            e=(4,),
        ),
    ),
    Case(
        "activation of whole leaves before a mean",
        partial(raw, activation_of_whole_leaves, inputs=(3, 4, 4, 2), w=(3, 3, 2, 3), s=(3,), b=(3,), d=(3, 4)),
        plain=("b", "s"),
    ),
    Case(
        "readouts that samples change",
        partial(
            raw,
            false_heads,
            inputs=(3, 5, 6, 2),
            w=(3, 3, 2, 3),
            v=(2, 2, 3, 3),
            u=(2, 2, 3, 3),
            t=(2, 2, 3, 3),
            s=(2, 2, 3, 3),
            d=(3, 4),
        ),
        neural_tangents=False,
    ),
    Case(
        "bias along positions",
        partial(raw, bias_along_positions, inputs=(3, 4, 5), w=(5, 4), b=(4,), v=(4, 4), b2=(4,), g=(4,), h=(4,)),
    ),
    Case("attention block", partial(build_flax, Attention(), 3, 5, 4)),
    Case(
        "language model",
        lambda: build_flax(Language(), x=jnp.asarray(np.random.default_rng(0).integers(0, 6, (3, 4)))),
        plain=("params/Embed_0/embedding",),
    ),
    Case(
        "gru in a scan",
        partial(build_flax, Recurrent(), 3, 5, 2),
        plain=tuple(
            f"params/GRUCell_0/{gate}/{leaf}"
            for gate, leaves in {
                "hn": ("bias", "kernel"),
                "hr": ("kernel",),
                "hz": ("kernel",),
                "in": ("bias", "kernel"),
                "ir": ("bias", "kernel"),
                "iz": ("bias", "kernel"),
            }.items()
            for leaf in leaves
        ),
    ),
    Case("vmapped heads", partial(build_flax, Heads(), 4, 5)),
    Case("scan over stacked weights", partial(raw, scan_stacked, w=(3, 5, 5), v=(5, 2)), plain=("w",)),
    Case(
        "ntk parameterisation",
        partial(raw, lambda p, x: jnp.tanh(x @ p["w"] / jnp.sqrt(5.0)) @ (0.3 * p["v"]).T * 0.5, w=(5, 6), v=(3, 6)),
    ),
    Case(
        "scaled twice differently",
        partial(raw, lambda p, x: jnp.tanh(jnp.tanh(x @ (p["w"] / 2.0)) @ (-p["w"] / 2.0)) @ p["w"], w=(5, 5)),
    ),
    Case(
        "scaled by a traced constant", partial(raw, lambda p, x: x @ (p["w"] * jnp.exp(jnp.arange(3.0)[1])), w=(5, 3))
    ),
    Case("tied weights W and its transpose", partial(raw, lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"].T, w=(5, 6))),
    Case("transposed twice alike", partial(raw, lambda p, x: jnp.tanh(x @ p["w"].T) @ p["w"].T, w=(5, 5))),
    Case("weight on the left", partial(raw, lambda p, x: (p["w"] @ jnp.tanh(p["w"] @ x.T)).T, w=(5, 5))),
    Case(
        "positions",
        partial(
            raw,
            lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None, None]).sum(1) @ p["v"],
            inputs=(3, 2, 5),
            w=(5, 7),
            b=(7,),
            v=(7, 2),
        ),
    ),
    Case("many positions", partial(raw, lambda p, x: jnp.tanh(x @ p["w"]).sum(1), inputs=(3, 30, 2), w=(2, 3))),
    Case(
        "positions on the left",
        partial(raw, lambda p, x: jnp.tanh(jnp.einsum("kf,ntk->nft", p["w"], x)).sum(2), inputs=(3, 2, 5), w=(5, 4)),
    ),
    Case(
        "two contracted axes",
        partial(
            raw,
            lambda p, x: jnp.einsum("nab,bac->nc", jnp.tanh(jnp.einsum("nab,bac->nac", x, p["w"])), p["w"]),
            inputs=(3, 2, 5),
            w=(5, 2, 5),
        ),
    ),
    Case(
        "layer norm by hand",
        partial(
            raw,
            lambda p, x: ((x - x.mean(1, keepdims=True)) * (1 + p["g"])[None] + p["b"][None]) @ p["w"],
            g=(5,),
            b=(5,),
            w=(5, 3),
        ),
    ),
    Case(
        "weight norm",
        partial(
            raw,
            lambda p, x: jnp.tanh(x @ (p["g"][None] * p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True))),
            g=(3,),
            w=(5, 3),
        ),
        plain=("g", "w"),
    ),
    Case("masked weight", partial(raw, lambda p, x: jnp.tanh(x @ (p["w"] * MASK)).sum(1, keepdims=True), w=(5, 6))),
    Case(
        "product of two weights",
        partial(raw, lambda p, x: jnp.tanh(x @ (p["a"] @ p["b"])), a=(5, 2), b=(2, 3)),
        plain=("a", "b"),
    ),
    Case(
        "low-rank update",
        partial(raw, lambda p, x: jnp.tanh(x @ (p["w"] + p["a"] @ p["b"])), w=(5, 3), a=(5, 2), b=(2, 3)),
        plain=("a", "b"),
    ),
    Case(
        "sum of two weights",
        partial(raw, lambda p, x: jnp.tanh(x @ (p["a"] - p["b"])), a=(5, 3), b=(5, 3)),
        plain=("a", "b"),
    ),
    Case("weight times itself", partial(raw, lambda p, x: x @ p["w"] @ (p["w"] @ p["w"]), w=(5, 5)), plain=("w",)),
    Case(
        "weight times its function",
        partial(raw, lambda p, x: x @ (p["w"] * jax.nn.sigmoid(p["w"])), w=(5, 3)),
        plain=("w",),
    ),
    Case(
        "gate that depends on x",
        partial(raw, lambda p, x: jnp.einsum("ni,nio->no", x, p["w"][None] * jnp.sin(x)[:, :, None]), w=(5, 3)),
    ),
    Case(
        "known and unknown use",
        partial(raw, lambda p, x: jnp.tanh(x @ p["w"]) * jnp.sum(jnp.square(p["w"])), w=(5, 3)),
        plain=("w",),
    ),
    Case(
        "subtracted bias",
        partial(
            raw, lambda p, x: (p["b"][None] - jnp.tanh(p["b"][None] - x @ p["w"])) - p["b"][None], w=(5, 3), b=(3,)
        ),
    ),
    Case(
        "one bias at two sums",
        partial(raw, lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]) + p["b"][None], w=(5, 3), b=(3,)),
    ),
    Case(
        "two biases at one sum",
        partial(raw, lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None] + p["c"][None]), w=(5, 3), b=(3,), c=(3,)),
    ),
    Case(
        "sum read twice",
        partial(raw, lambda p, x: (lambda z: (z + p["b"][None]) * jnp.sin(z))(x @ p["w"]), w=(5, 3), b=(3,)),
    ),
    Case(
        "scalar parameters",
        partial(raw, lambda p, x: (jnp.tanh(x * p["s"]) + p["t"]) @ p["w"] / p["u"], s=(), t=(), w=(5, 3), u=()),
        plain=("u",),
    ),
    Case(
        "parameter as output",
        partial(raw, lambda p, x: jnp.broadcast_to(p["b"][None], (x.shape[0], 3)), b=(3,)),
        plain=("b",),
    ),
    Case("output bias only", partial(raw, lambda p, x: x[:, :3] + p["b"][None], b=(3,))),
    Case("unused leaf", partial(raw, lambda p, x: x @ p["w"], w=(5, 3), unused=(4, 2))),
    Case("empty leaf", partial(raw, lambda p, x: x @ p["w"] + (x[:, :0] @ p["none"]), w=(5, 3), none=(0, 3))),
    Case("integer leaf", with_integers),
    Case("dead relu", dead_relu, plain=("w",)),
    Case(
        "jit inside, twice",
        partial(
            raw,
            lambda p, x: (lambda g: jax.jit(g)(jax.jit(g)(x, p["w"]), p["v"]))(lambda x, w: jnp.tanh(x @ w)),
            w=(5, 4),
            v=(4, 3),
        ),
    ),
    Case(
        "remat of jit",
        partial(
            raw, jax.checkpoint(lambda p, x: jax.jit(lambda w: jnp.tanh(x @ w))(p["w"]) @ p["v"]), w=(5, 4), v=(4, 3)
        ),
    ),
    Case(
        "custom_jvp with a leaf inside",
        partial(raw, lambda p, x: leaky_square(p["w"], x) @ p["v"], w=(5, 4), v=(4, 3)),
        plain=("w",),
    ),
    Case(
        "custom_vjp downstream",
        partial(raw, lambda p, x: clipped(jnp.tanh(x @ p["w"])) @ p["v"], w=(5, 4), v=(4, 3)),
        neural_tangents=False,
    ),
    Case(
        "stop_gradient",
        partial(raw, lambda p, x: jnp.tanh(x @ jax.lax.stop_gradient(p["w"])) @ p["v"], w=(5, 4), v=(4, 3)),
        plain=("w",),
    ),
    Case(
        "cond on the sample",
        partial(
            raw,
            lambda p, x: jax.lax.cond(x.sum() > 0, lambda w: x @ w, lambda w: jnp.sin(x @ w), p["w"]),
            inputs=(1, 5),
            w=(5, 3),
        ),
        plain=("w",),
        neural_tangents=False,
    ),
    Case(
        "concatenated weights",
        partial(raw, lambda p, x: x @ jnp.concatenate([p["a"], p["b"]], 1), a=(5, 2), b=(5, 1)),
        plain=("a", "b"),
    ),
    Case(
        "sliced and reversed weight",
        partial(raw, lambda p, x: jnp.tanh(x @ p["w"][0]) @ p["w"][1] @ p["w"][1][::-1], w=(2, 5, 5)),
    ),
    Case("reshaped weight", partial(raw, lambda p, x: jnp.tanh(x @ p["w"].reshape(5, 4)), w=(5, 2, 2))),
    Case("padded weight", partial(raw, lambda p, x: x @ jnp.pad(p["w"], ((0, 1), (0, 0))), w=(4, 3)), plain=("w",)),
    Case(
        "one hot embedding",
        lambda: (
            lambda p, t: jnp.tanh(jax.nn.one_hot(t, 6, dtype=p["w"].dtype) @ p["w"]).sum(1),
            {"w": draw(1, 6, 3)},
            jnp.asarray([[0, 1, 1], [5, 0, 2]]),
        ),
    ),
]
