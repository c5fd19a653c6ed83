"""Optimal transport or independent noise? Train the digits both ways with the same budget, and score both at several NFE.

Runs are kept in --runs, and a second call measures without training again. Takes half an hour on one core for each seed and coupling.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import (
    mean_and_error,
    new_parser,
    parse,
    print_conditions,
    print_table,
    progress,
    script,
    seeds_in_words,
    train_and_load,
    with_error,
)

from amgen import config, sampling
from amgen.config import Config
from amgen.core.processes import Processes
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.features import make_extractor
from amgen.evaluation.reference import open_reference

COUPLINGS = {"ot": [], "independent": ["coupling.kind=independent"]}
SOLVERS = (("euler", 4), ("euler", 10), ("midpoint", 2), ("midpoint", 5), ("midpoint", 10), ("midpoint", 25))
"""Solvers and their steps."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, score, and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/couplings"), help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to train with")
    parser.add_argument("--num", type=int, help="images to generate; default: the number of real ones")
    parser.add_argument("--only", type=str, choices=COUPLINGS, metavar="NAME", help="train this one, %(choices)s, and measure nothing")
    parser.add_argument(
        "--set", type=str, dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change an option of the preset"
    )
    options = parse(parser, arguments)
    models = {
        name: [train_and_load(settings_of(name, seed, options.overrides), options.runs / f"{name}-{seed}") for seed in options.seeds]
        for name in COUPLINGS
        if options.only in (None, name)
    }
    if not options.only:
        score(models, options)


def settings_of(coupling: str, seed: int, overrides: list[str]) -> Config:
    """Return the options of a run."""
    return config.load("digits", [*COUPLINGS[coupling], *overrides, f"seed={seed}"])


def score(models: dict[str, list[sampling.Model]], options: argparse.Namespace) -> None:
    """Score the models of each coupling and print the table."""
    extractor = make_extractor("digits", 1, 8)
    evaluator = Evaluator(extractor, open_reference(None, config.load("digits").images, extractor, Processes()))
    rows = []
    for name, trained in models.items():
        for solver, steps in SOLVERS:
            settings = {"solver": solver, "steps": steps, "batch_size": 600}
            evaluations = [evaluator(model, model.options(settings), options.num) for model in trained]
            values = [evaluation.principal.value for evaluation in evaluations]
            rows.append([name, solver, steps, evaluations[0].sampling["NFE"], with_error(*mean_and_error(values), ".3f", ".3f")])
            progress(", ".join(map(str, rows[-1])))
    last = evaluations[-1]
    print_table(["coupling", "solver", "steps", "NFE", last.principal.name], rows)
    print_conditions(
        options,
        f"{last.generated:,} generated against {last.real:,} real images",
        f"{last.model['images_trained']:,} images of training",
        f"{seeds_in_words(options.seeds)} of the training, seed 0 of the images",
        device=trained[0].device,
    )


if __name__ == "__main__":
    main()
