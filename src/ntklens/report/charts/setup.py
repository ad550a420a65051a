"""What the runs of a chart are, in the words of its caption."""

import json
from collections.abc import Sequence

from ntklens.analysis.stack import flatten_config
from ntklens.analysis.study import Study
from ntklens.report.style import label_setting

TOLD = ("dataset.name", "dataset.train_size", "model._target_", "model.width", "model.depth", "model.activation",
        "optimizer._target_", "optimizer.learning_rate")  # fmt: skip


def describe_setup(study: Study, runs: Sequence[str]) -> str:
    """Return in what all runs agree, and how many seeds each has, as one sentence."""
    data = study.data.sel(run=list(runs))
    configs = [flatten_config(json.loads(text)) for text in data["config"].values if text] if "config" in data else []
    words = [
        label_setting(name, str(configs[0][name]))
        for name in TOLD
        if configs and configs[0].get(name) is not None and all(c.get(name) == configs[0][name] for c in configs)
    ]
    seeds = (data.state.values.astype(str) == "done").sum(axis=1)
    few, many = (int(seeds.min()), int(seeds.max())) if len(seeds) else (0, 0)
    words.append(f"{few if few == many else f'{few} … {many}'} seed{'s' if many != 1 else ''} for each point")
    return f"{', '.join(words)}.".replace("adam,", "Adam,")
