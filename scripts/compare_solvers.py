"""Which solver? Fréchet distance against evaluations for every solver and a range of steps on a trained model, with the Pareto front named.

The same seeds for all, so that differences are the solvers' own. A star marks what no other setting beats in both columns.
"""

import argparse
from pathlib import Path

import torch

from amgen import sampling
from amgen.config import ODE_SOLVERS
from amgen.data import open_dataset
from amgen.evaluation.features import extract, make_extractor
from amgen.evaluation.fid import real_batches
from amgen.evaluation.metrics import frechet_distance
from amgen.solvers import FIXED_STEP


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--features", default="digits")
    parser.add_argument("--num", type=int, help="images to draw; default: as many as real ones")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[4, 6, 8, 12, 20, 40, 200], help="budgets of fixed-step solvers")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-1, 1e-2, 1e-3, 1e-4], help="of adaptive solvers")
    parser.add_argument("--grids", nargs="+", default=["uniform", "cosine", "polynomial"])
    parser.add_argument("--solvers", nargs="+", default=list(ODE_SOLVERS))
    parser.add_argument("--batch-size", type=int, default=600)
    options = parser.parse_args()
    model = sampling.load(options.run)
    channels, size, _ = model.config.image_shape
    extractor = make_extractor(options.features, channels, size, None, model.device)
    dataset = open_dataset(model.config.images)
    num = options.num or len(dataset)
    real = extract(extractor, real_batches(dataset, options.batch_size))

    def measure(settings: dict[str, object]) -> tuple[int, float]:
        chosen, nfe, images = model.options({**settings, "batch_size": options.batch_size}), 0, []
        for batch in sampling.generate_all(model, chosen, range(num), sampling.Request()):
            nfe = max(nfe, batch.evaluations)
            images.append(batch.images)
        return nfe, frechet_distance(extract(extractor, [torch.cat(images)]), real)

    rows: list[tuple[int, float, str]] = []
    for name in options.solvers:
        settings: list[dict[str, object]] = [{"solver": name, "tolerance": tolerance} for tolerance in options.tolerances]
        if name in FIXED_STEP:
            settings = [
                {"solver": name, "steps": budget // FIXED_STEP[name].evaluations, "step_grid": grid}
                for budget in options.evaluations
                if budget >= FIXED_STEP[name].evaluations
                for grid in options.grids
            ]
        for entry in settings:
            rows.append((*measure(entry), " ".join(str(value) for value in entry.values())))
    front = [row for row in rows if not any(other[0] <= row[0] and other[1] < row[1] for other in rows)]
    print(f"{options.run}: {extractor.metric}, {num:,} generated against {len(real):,} real images")
    print(f"{'NFE':>5} {'FD':>8}  solver, steps or tolerance, grid")
    for row in sorted(rows):
        print(f"{row[0]:5} {row[1]:8.3f}  {row[2]}{'  *' if row in front else ''}")


if __name__ == "__main__":
    main()
