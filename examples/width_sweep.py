"""From a sweep over widths to a report.

    python examples/width_sweep.py

Four widths of a perceptron on scikit-learn's digits, three seeds each; then the report, and its laws in Python.
These are the words of a command line: `ntklens.run.main` takes them as `python -m ntklens.run` does. About a minute
of a processor; finished seeds are skipped when it is run again.
"""

import ntklens
from ntklens.run import main

NAME = "width_sweep"
status = main(
    f"-m name={NAME} dataset=digits dataset.train_size=100 dataset.probe_size=32 model.width=16,32,64,128 "
    "protocol=resolved ensemble=3 tracking=none".split()
)
assert status == 0, "0: every seed is done"

# %%
# `multirun/width_sweep/report/report.html` opens in a browser.

status = main(["task=report", f"name={NAME}", "tracking=none"])
assert status == 0

# %%
# The same in Python: the trajectories as one Dataset, the laws with their intervals, a figure of the report.

data = ntklens.load(f"multirun/{NAME}")
print(dict(data.sizes))
study = ntklens.analyse(data)
for law in study.laws:
    if law.preferred == "power":
        exponent = law.fits["power"].exponent
        print(f"{law.observable}: exponent {exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]")
ntklens.draw(study, "laws").savefig(f"{NAME}.png", dpi=110)
