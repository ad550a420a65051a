"""Do the intervals of laws cover the truth as often as they state, and how often is a break found where there is none?

Sweeps of seven widths are made up from known curves, with intrinsic scatter, shared draws and seeds; each law's 95 %
intervals should hold the truth in about 95 % of the repeats. A plain percentile bootstrap over seeds is beside them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from timing import write_results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from laws import CURVES, TRUTH, WIDTHS, draw_values
from ntklens.stats.powerlaw import fit_form
from ntklens.stats.samples import summarise
from ntklens.stats.transition import find_transition

SETTINGS = [(seeds, misfit, draws) for seeds in (5, 20) for misfit, draws in ((0.0, 1), (0.03, 1), (0.03, 4), (0.0, 4))]
SMOOTH = ("power", "affine", "inverse_affine", "plateau_power", "power_plateau", "sharp")


def draw(form, repeat, seeds, misfit, draws):
    return draw_values(CURVES[form](WIDTHS), np.random.default_rng([1, repeat, seeds, draws]), seeds, misfit, draws)


def measure_coverage(form, seeds, misfit, draws, repeats):
    hits = dict.fromkeys(TRUTH[form], 0)
    for repeat in range(repeats):
        samples = summarise(WIDTHS, draw(form, repeat, seeds, misfit, draws), ("draw", "seed"))
        parameters = fit_form(samples, form).parameters
        for name, value in TRUTH[form].items():
            hits[name] += parameters[name].low <= value <= parameters[name].high
    return {name: count / repeats for name, count in hits.items()}


def measure_bootstrap(seeds, misfit, repeats, replicates=200):
    """What a percentile bootstrap over seeds covers, for the exponent of a power law."""
    hits = 0
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        y = draw("power", repeat, seeds, misfit, 1)[:, 0]
        chosen = y[:, rng.integers(seeds, size=(replicates, seeds))].mean(axis=2)
        slopes = np.polyfit(np.log(WIDTHS), np.log(chosen), 1)[0]
        low, high = np.quantile(slopes, [0.025, 0.975])
        hits += low <= TRUTH["power"]["exponent"] <= high
    return hits / repeats


def measure_false(form, seeds, misfit, repeats):
    """How often a break, and how often a crossover, is claimed for smooth truth."""
    breaks = crossovers = 0
    for repeat in range(repeats):
        samples = summarise(WIDTHS, draw(form, repeat, seeds, misfit, 1)[:, 0])
        found = find_transition(samples, "trace_ratio", "model.width", rng=np.random.default_rng(repeat))
        breaks += found.break_p < 0.05
        crossovers += found.within
    return breaks / repeats, crossovers / repeats


def measure_shuffled(repeats):
    """How often an exponent is claimed for a power law whose widths were shuffled."""
    claimed = 0
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        y = rng.permutation(draw("power", repeat, 5, 0.03, 1)[:, 0])
        exponent = fit_form(summarise(WIDTHS, y), "power").exponent
        claimed += not exponent.low <= 0 <= exponent.high
    return claimed / repeats


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--breaks", type=int, default=200, help="repeats of the bootstrap tests, 0.1 s each")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    coverage, breaks, bootstrap = [], [], []
    for form in TRUTH:
        for seeds, misfit, draws in SETTINGS:
            shares = measure_coverage(form, seeds, misfit, draws, repeats)
            coverage.append({"form": form, "seeds": seeds, "misfit": misfit, "draws": draws, **shares})
            listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            print(f"{form:14} {seeds:3} seeds, misfit {misfit:.0%}, {draws} draws: {listed}", flush=True)
    for form in SMOOTH:
        for seeds, misfit in ((5, 0.03), (20, 0.03), (20, 0.0)):
            broken, crossed = measure_false(form, seeds, misfit, arguments.breaks)
            breaks.append({"truth": form, "seeds": seeds, "misfit": misfit, "break": broken, "crossover": crossed})
            print(
                f"{form:14} {seeds:3} seeds, misfit {misfit:.0%}: break {broken:.1%}, crossover {crossed:.1%}",
                flush=True,
            )
    for seeds, misfit in ((5, 0.03), (20, 0.03), (20, 0.0)):
        bootstrap.append({"seeds": seeds, "misfit": misfit, "exponent": measure_bootstrap(seeds, misfit, repeats)})
        print(f"percentile bootstrap over {seeds} seeds, misfit {misfit:.0%}: {bootstrap[-1]['exponent']:.1%}")
    shuffled = measure_shuffled(repeats)
    print(f"shuffled widths: an exponent is claimed in {shuffled:.1%}")
    answers = {"coverage": coverage, "false": breaks, "percentile_bootstrap": bootstrap, "shuffled": shuffled}
    write_results("coverage", {"repeats": repeats, "repeats_of_breaks": arguments.breaks, **answers})


if __name__ == "__main__":
    main()
