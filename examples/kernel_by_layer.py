"""The kernel of any network, and its layers.

    python examples/kernel_by_layer.py

Θ of a JAX function f(params, x) → [N, C], here a convolutional network of flax.linen: how much of it each layer
holds, how many directions it is spread over, and how it is computed. About 15 s of a processor, most of it to
compile.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import linen as nn
from sklearn.datasets import load_digits

import ntklens


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        for channels in (8, 16):
            x = nn.avg_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


digits = load_digits()
order = np.argsort(digits.target[:40], kind="stable")  # inputs of one class side by side
x = (digits.images[:40][order, :, :, None] / 16).astype(np.float32)
model = Network()
variables = model.init(jax.random.key(0), x)

# %%
# A module and its variables, or any function and its parameters. The sum of the layers is Θ, with no division by N
# or C.

shares = ntklens.ntk_by_layer(model, variables, x)
theta = ntklens.ntk(model.apply, variables, x)
print("Θ:", theta.shape, " Γ =", float(ntklens.effective_rank(theta)))
for layer, share in shares.items():
    part = float(ntklens.trace(share) / ntklens.trace(theta))
    print(f"{layer}: {part:.2f} of Tr Θ, Γ = {float(ntklens.effective_rank(share)):.1f}")
np.testing.assert_allclose(sum(shares.values()), theta, rtol=1e-4, atol=1e-4)

# %%
# Each layer's kernel is computed from the structure of the program: `explain_ntk` prints the way of each parameter
# array.

ntklens.explain_ntk(model, variables, x)

# %%
# Θ averaged over outputs, layer by layer.

figure, axes = plt.subplots(1, len(shares) + 1, figsize=(9, 2.7), layout="constrained")
for axis, (name, kernel) in zip(axes, {"Θ": theta, **shares}.items(), strict=True):
    image = axis.imshow(np.einsum("icjc->ij", kernel) / 10)
    axis.set(title=name, xticks=[], yticks=[])
    figure.colorbar(image, ax=axis, shrink=0.7)
figure.savefig("kernel_by_layer.png", dpi=120)
