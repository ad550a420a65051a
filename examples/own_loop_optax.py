"""A training loop of your own, with optax.

    python examples/own_loop_optax.py
    python -m ntklens.run task=report name=own_loop_optax

`ntklens.Recorder` follows the kernel while a loop of yours trains. Here it does at two widths, whose trajectories
make a sweep. About 10 s of a processor.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from sklearn.datasets import load_digits

import ntklens

images, labels = load_digits(return_X_y=True)
x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(labels)
train, selection, test = (x[:100], y[:100]), (x[600:800], y[600:800]), (x[800:1000], y[800:1000])


def init(key, width):
    first, second = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(first, (64, width)) / 8, "b": jnp.zeros((1, width))},
        "readout": {"w": jax.random.normal(second, (width, 10)) / width**0.5},
    }


def apply(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["readout"]["w"]


@jax.jit
def compute_loss(params, split):
    inputs, labels = split
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, inputs), labels).mean()


optimizer = optax.adam(1e-2)


@jax.jit
def update(params, state):
    gradients = jax.grad(compute_loss)(params, train)
    changes, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, changes), state


# %%
# The recorder is called before the first update and then whenever losses are known; `is_due` says where they are
# needed.

for width in (16, 64):
    params = init(jax.random.key(0), width)
    state = optimizer.init(params)
    recorder = ntklens.Recorder(apply, params, probe=test[0][:16], config={"model.width": width, "seed": 0})
    for step in range(101):
        if recorder.is_due(step) or step == 100:  # losses are computed only where they are recorded
            losses = [compute_loss(params, split) for split in (train, selection, test)]
            recorder(step, params, train_loss=losses[0], selection_loss=losses[1], test_loss=losses[2])
        params, state = update(params, state)
    print(recorder.save("multirun/own_loop_optax"))

# %%
# What was saved is loaded as any other results are.

data = ntklens.load("multirun/own_loop_optax")
print(data["minimum_effective_rank"])

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for number, width in enumerate(data["model.width"].values):
    run = data.isel(run=number, seed=0)
    axes[0].plot(run["step"], run["test_loss"], label=f"width {width}")
    axes[1].plot(run["step"], run["trace"])
for axis, label in zip(axes, ("test loss", "Tr Θ"), strict=True):
    axis.set(xscale="symlog", yscale="log", xlabel="updates", ylabel=label)
axes[0].legend()
figure.savefig("own_loop_optax.png", dpi=120)
