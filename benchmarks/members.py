"""From which size on do the members of an ensemble train faster one after another than as one batched product?

One compiled loop of full-batch Adam steps (100 samples of 784 inputs, depth 2), ten members: batched by vmap against
one after another, over widths. The answer is the rule `training.ensemble.trains_faster_alone`.

    python benchmarks/members.py
"""

import jax
from main_job import LEARNING_RATE, build_trainer, write_loop_by_hand
from rich.console import Console
from rich.table import Table
from timing import time_in_turns, write_results

from ntklens.data import synthetic
from ntklens.training.ensemble import initialise, trains_faster_alone

WIDTHS, MEMBERS, STEPS = (16, 32, 64, 128, 192, 256, 512, 1024), 10, 30


def main() -> None:
    data = synthetic.load(input_dim=784, train_size=100)
    rows = []
    for width in WIDTHS:
        trainer = build_trainer(width, data)
        state = initialise(trainer, range(MEMBERS), LEARNING_RATE)
        batched = write_loop_by_hand(trainer, data, STEPS, jax.vmap)
        alone = write_loop_by_hand(trainer, data, STEPS, lambda run: run)
        members = [jax.tree.map(lambda leaf, k=k: leaf[k], (state.params, state.opt_state)) for k in range(MEMBERS)]
        contestants = {
            "batched": lambda batched=batched, state=state: batched(state.params, state.opt_state),
            "alone": lambda alone=alone, members=members: [alone(*member) for member in members],
        }
        seconds = time_in_turns(contestants, 5)
        params = members[0][0]
        rows.append(
            {
                "width": width,
                "parameter_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
                "seconds": seconds,
                "alone_is_faster_by": seconds["batched"] / seconds["alone"],
                "rule_says_alone": trains_faster_alone(params),
            }
        )
    table = Table("width", "parameters", "batched", "alone", "alone is faster by", "rule says alone")
    for row in rows:
        times = [f"{row['seconds'][name]:.3f} s" for name in ("batched", "alone")]
        size = f"{row['parameter_bytes'] / 2**20:.2f} MiB"
        table.add_row(str(row["width"]), size, *times, f"{row['alone_is_faster_by']:.2f}", str(row["rule_says_alone"]))
    Console().print(table)
    write_results("members", {"members": MEMBERS, "rows": rows})


if __name__ == "__main__":
    main()
