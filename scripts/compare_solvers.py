"""Which solver? Fréchet distance against evaluations for every solver and a range of steps on a trained model, with the Pareto front named.

The same seeds for all, so that differences are the solvers' own. A star marks what no other setting beats in both columns. For combinations
of a few settings, `amgen eval-fid --sweep` does the same.
"""

import argparse
from pathlib import Path
from typing import Any

from amgen import sampling
from amgen.config import ODE_SOLVERS
from amgen.core.processes import Processes
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.features import make_extractor
from amgen.evaluation.reference import open_reference
from amgen.evaluation.report import table
from amgen.evaluation.sweep import evaluate_all
from amgen.solvers import FIXED_STEP


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--features", default="digits")
    parser.add_argument("--data", help="real images; default: the training images")
    parser.add_argument("--num", type=int, help="images to draw; default: as many as real ones, at most 10,000")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[4, 6, 8, 12, 20, 40, 200], help="budgets of fixed-step solvers")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-1, 1e-2, 1e-3, 1e-4], help="of adaptive solvers")
    parser.add_argument("--grids", nargs="+", default=["uniform", "cosine", "polynomial"])
    parser.add_argument("--solvers", nargs="+", default=list(ODE_SOLVERS))
    parser.add_argument("--batch-size", type=int, default=600)
    options = parser.parse_args()
    model = sampling.load(options.run)
    channels, size, _ = model.config.image_shape
    extractor = make_extractor(options.features, channels, size, None, model.device)
    reference = open_reference(options.data, model.config.images, extractor, Processes())
    combinations = [settings for name in options.solvers for settings in settings_of(name, options)]
    changes = {"batch_size": options.batch_size}
    evaluations, settings = evaluate_all(
        Evaluator(extractor, reference), [model.source], combinations, changes, options.num, sampling.Request(), (None, False)
    )
    first = evaluations[0]
    print(f"{options.run}: {first.principal.name}, {first.generated:,} generated against {first.real:,} real images of {first.reference}")
    print(f"{'NFE':>5} {'FD':>8}  solver, steps or tolerance, grid")
    rows = table(evaluations, settings)
    for row in sorted(rows, key=lambda row: (row["NFE"], row[first.principal.name])):
        chosen = " ".join(str(row[key]) for key in ("solver", "tolerance", "steps", "step_grid") if key in row)
        print(f"{row['NFE']:5} {row[first.principal.name]:8.3f}  {chosen}{'  *' if row['pareto'] else ''}")


def settings_of(solver: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the settings to try of a solver."""
    if solver not in FIXED_STEP:
        return [{"solver": solver, "tolerance": tolerance} for tolerance in options.tolerances]
    cost = FIXED_STEP[solver].evaluations
    return [
        {"solver": solver, "steps": budget // cost, "step_grid": grid}
        for budget in options.evaluations
        if budget >= cost
        for grid in options.grids
    ]


if __name__ == "__main__":
    main()
