"""Optimal transport or independent noise? Train the digits both ways with the same budget and print the distance for each number of
evaluations.

Runs are kept in --runs, and a second call measures without training again.
"""

import argparse
from pathlib import Path

from amgen import config, sampling
from amgen.core.processes import Processes
from amgen.evaluation.evaluate import Evaluator
from amgen.evaluation.features import make_extractor
from amgen.evaluation.reference import open_reference
from amgen.training.main import train

COUPLINGS = {"ot": [], "independent": ["coupling.kind=independent"]}


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/couplings"), help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to train with")
    parser.add_argument("--only", choices=COUPLINGS, help="train one of the two and measure nothing")
    options = parser.parse_args()
    for seed in options.seeds:
        for name, overrides in COUPLINGS.items():
            if options.only in (None, name):
                train(config.load("digits", [*overrides, f"seed={seed}"]), options.runs / f"{name}-{seed}")
    if options.only:
        return
    extractor = make_extractor("digits", 1, 8)
    evaluator = Evaluator(extractor, open_reference(None, config.load("digits").data, extractor, Processes()))
    print(f"FD (digits features), 1,797 generated against 1,797 real; seeds {options.seeds}")
    print(f"{'coupling':12} {'solver':9} {'steps':>5} {'NFE':>4}  FD for each seed")
    for name in COUPLINGS:
        for solver, steps in (("euler", 4), ("euler", 10), ("midpoint", 2), ("midpoint", 5), ("midpoint", 10), ("midpoint", 25)):
            values, nfe = [], 0
            for seed in options.seeds:
                model = sampling.load(options.runs / f"{name}-{seed}")
                changed = config.change(model.config.sampling, {"solver": solver, "steps": steps, "batch_size": 600})
                evaluation = evaluator(model, changed)
                values.append(evaluation.principal.value)
                nfe = evaluation.sampling["NFE"]
            print(f"{name:12} {solver:9} {steps:5} {nfe:4}  {'  '.join(f'{value:.3f}' for value in values)}", flush=True)


if __name__ == "__main__":
    main()
