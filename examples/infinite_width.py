"""A finite network's kernel against its limit of infinite width.

    python examples/infinite_width.py

At the start Θ of a wide network is close to K ⊗ I_C with K known in closed form (Jacot et al. 2018), and the
distance falls as width^−½. Under `ntk` the limit does not depend on the width. About 20 s of a processor; needs
neural-tangents, which `make setup` installs.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import ntklens
from ntklens.models.mlp import MLP

x = (load_digits().data[:16] / 16).astype(np.float32)
widths = [16, 64, 256, 1024]

# %%
# The distance of Θ to its limit, relative to it, for eight seeds at each width.

distances = []
for width in widths:
    model = MLP(width=width, depth=2, classes=3, parameterization="ntk")
    limit = np.einsum("ij,cd->icjd", ntklens.infinite_kernels(model, x).ntk, np.eye(3))
    kernels = [ntklens.ntk(model, model.init(jax.random.key(seed), x), x) for seed in range(8)]
    distances.append([np.linalg.norm(theta - limit) / np.linalg.norm(limit) for theta in kernels])
distances = np.array(distances)
slope = np.polyfit(np.log(widths), np.log(distances.mean(axis=1)), 1)[0]
print(f"distance ∝ width^{slope:.2f}")

# %%
# During training, `metrics=[kernel_distance_to_limit]` records the same distance in every run.

figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
axis.loglog(widths, distances, "o", color="C0", alpha=0.4)
axis.loglog(widths, distances.mean(axis=1), color="C0", label=f"mean: exponent {slope:.2f}")
axis.loglog(widths, distances.mean() * (np.array(widths) / 128) ** -0.5, "k--", label="width^−½")
axis.set(xlabel="width", ylabel="‖Θ_0 − Θ_∞‖ / ‖Θ_∞‖")
axis.legend()
figure.savefig("infinite_width.png", dpi=120)
