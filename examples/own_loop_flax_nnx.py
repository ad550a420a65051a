"""A training loop of your own, with flax.nnx.

    python examples/own_loop_flax_nnx.py
    python -m ntklens.run task=report name=own_loop_flax_nnx

A module of flax.nnx holds its parameters; `ntklens.Recorder` takes its state, and a function that merges a state
into the module. About 10 s of a processor.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from flax import nnx
from sklearn.datasets import load_digits

import ntklens

images, labels = load_digits(return_X_y=True)
x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(labels)
train, test = (x[:100], y[:100]), (x[800:1000], y[800:1000])


class Network(nnx.Module):
    def __init__(self, width, rngs):
        self.hidden = nnx.Linear(64, width, rngs=rngs)
        self.readout = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.relu(self.hidden(x)))


def compute_loss(model, split):
    inputs, labels = split
    return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()


@nnx.jit
def update(model, optimizer):
    gradients = nnx.grad(compute_loss)(model, train)
    optimizer.update(model, gradients)


# %%
# The whole state is handed over: what is no `nnx.Param` is held fixed in the kernel.

model = Network(32, nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
graph, start = nnx.split(model)


def apply(state, x):
    return nnx.merge(graph, state)(x)


recorder = ntklens.Recorder(apply, start, probe=test[0][:16], config={"model.width": 32, "seed": 0})
for step in range(101):
    if recorder.is_due(step) or step == 100:
        losses = compute_loss(model, train), compute_loss(model, test)
        recorder(step, nnx.state(model), train_loss=losses[0], test_loss=losses[1])
    update(model, optimizer)
print(recorder.save("multirun/own_loop_flax_nnx"))

# %%
# Each layer's share of Tr Θ.

run = ntklens.load("multirun/own_loop_flax_nnx").isel(run=0, seed=0)
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for layer in run["layer"].values:
    axis.plot(run["step"], run["trace_layer"].sel(layer=layer), label=str(layer))
axis.set(xscale="symlog", yscale="log", xlabel="updates", ylabel="share of Tr Θ")
axis.legend()
figure.savefig("own_loop_flax_nnx.png", dpi=120)
