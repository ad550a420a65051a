"""A convolutional network of your own on images of your own.

    python examples/own_cnn.py

Both become options of the command line, by a Python file and a YAML file each, which lie in `examples/own/`: a
flax.linen network (`own_model.py`, `conf/model/convnet.yaml`), and a loader of images and labels from an .npz file
(`own_images.py`, `conf/dataset/images.yaml`). About 35 s of a processor.
"""

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ntklens
from ntklens.run import main

OWN = Path(__file__).resolve().parent / "own"

# %%
# Images of your own: gratings in four directions under noise, [n, height, width, channels], and their labels.

generator = np.random.default_rng(0)
labels = generator.integers(4, size=800)
row, column = np.mgrid[:12, :12]
angle = labels[:, None, None] * np.pi / 4
phase = generator.uniform(0, 2 * np.pi, (800, 1, 1))
waves = np.sin(1.2 * (row * np.sin(angle) + column * np.cos(angle)) + phase)
images = (waves + generator.normal(0, 0.5, waves.shape))[..., None]
np.savez("gratings.npz", images=images.astype(np.float32), labels=labels)

# %%
# `PYTHONPATH=examples/own python -m ntklens.run --config-dir examples/own/conf -m model=convnet dataset=images …`,
# from Python. The processes of a sweep find the Python files by PYTHONPATH, too.

os.environ["PYTHONPATH"] = str(OWN)
sys.path.insert(0, str(OWN))
status = main(
    f"--config-dir {OWN / 'conf'} -m name=own_cnn model=convnet model.channels=4,16 "
    "dataset=images dataset.path=gratings.npz dataset.train_size=200 "
    "dataset.probe_size=16 training.epochs=200 ensemble=2 tracking=none".split()
)
assert status == 0

# %%
# Results are like all others: loaded, analysed, reported.

data = ntklens.load("multirun/own_cnn")
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
samples = [images[labels == label][0, :, :, 0] for label in range(4)]
axes[0].imshow(np.block([samples[:2], samples[2:]]), cmap="gray")
axes[0].set(title="one image of each class", xticks=[], yticks=[])
for number, channels in enumerate(data["model.channels"].values):
    run = data.isel(run=number)
    for axis, name, label in ((axes[1], "test_loss", "test loss"), (axes[2], "trace", "Tr Θ")):
        axis.plot(run["step"].isel(seed=0), run[name].T, color=f"C{number}")
        axis.set(xscale="symlog", yscale="log", xlabel="updates", ylabel=label)
    axes[1].plot([], [], color=f"C{number}", label=f"{channels} channels")
axes[1].legend()
figure.savefig("own_cnn.png", dpi=110)
