"""amgen cells: what a trained action says about single cells."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Run, RuntimeOptions, Seed, SolverOptions, WeightsOptions, check_outputs, check_positive, grouped

cells = typer.Typer(help="Write velocity, growth and fates of cells into an AnnData file, or simulate cells to other times.")

Data = Annotated[str | None, typer.Option(help="Table with the cells. Default: the training data.", show_default=False)]
TimeKey = Annotated[str | None, typer.Option(help="Column of the times in --data. Default: the run's.", show_default=False)]
Embedding = Annotated[
    str | None,
    typer.Option(help="Key of obsm in --data that holds the coordinates of the run. Default: the run's.", show_default=False),
]


@cells.command("write")
@grouped
def write(
    run: Run,
    *,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="The copy to write, .h5ad.")] = Path("cells.h5ad"),
    fates: Annotated[
        str | None, typer.Option(help="Column of obs: write the probabilities that a cell ends in each of its labels.", show_default=False)
    ] = None,
    neighbours: Annotated[int, typer.Option(help="Cells of the last time whose labels decide the fate of a simulated cell.")] = 15,
    draws: Annotated[int, typer.Option(help="Simulations of each cell that its fates are averaged over, for noisy dynamics.")] = 10,
    trajectories: Annotated[int, typer.Option(help="Cells of the first time whose way is written; 0 for none.")] = 20,
    genes: Annotated[bool, typer.Option("--genes/--no-genes", help="Write velocities of genes, where the run knows them.")] = True,
    key: Annotated[str, typer.Option(help="Name of the velocities.")] = "velocity",
    time_key: TimeKey = None,
    embedding: Embedding = None,
    seed: Seed = 0,
    sampler: SolverOptions,
    weights: WeightsOptions,
    runtime: RuntimeOptions,
) -> None:
    """Write a copy of an AnnData file with velocity, growth rate, action, pseudo-potential, fates and trajectories of its cells."""
    from amgen.core import checks
    from amgen.core.errors import UserError

    if out.suffix.lower() != ".h5ad":
        raise UserError(f"--out {out}: expected a file name that ends in .h5ad")
    check_positive({"--neighbours": neighbours, "--draws": draws})
    if trajectories < 0:
        raise UserError(f"--trajectories {trajectories}: expected at least 0")
    if not key or "/" in key:
        raise UserError(f"--key {key!r}: expected a name without a slash")
    sampler.check()
    checks.check_run(run)
    check_outputs({"--out": out})

    from amgen.core.processes import require_single
    from amgen.sampling.annotation import WriteOptions, data_options, write_cells
    from amgen.sampling.cells import FateOptions

    require_single("amgen cells write")
    model = weights.load(run, runtime.device)
    options = data_options(model, data, {"time_key": time_key, "embedding": embedding})
    chosen = WriteOptions(key, genes, fates, trajectories, FateOptions(neighbours, draws, seed))
    written = write_cells(model, options, out, chosen, model.options(sampler.changes()), print)
    print(f"wrote {out}: {', '.join(written)}")
    print(model.in_words(model.describe()))


@cells.command("simulate")
@grouped
def simulate(
    run: Run,
    *,
    data: Data = None,
    times: Annotated[str, typer.Option(help="Times to write the cells at, in the unit of the table, such as 1,1.5,2.")],
    start: Annotated[
        float | None, typer.Option("--from", help="Time of the cells. Default: the first that was trained on.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write: .h5ad, .npz or .csv.")] = Path("simulated.npz"),
    time_key: TimeKey = None,
    embedding: Embedding = None,
    seed: Seed = 0,
    sampler: SolverOptions,
    weights: WeightsOptions,
    runtime: RuntimeOptions,
) -> None:
    """Simulate the cells of one time forward or backward, with the growth and the noise of the run, to other times."""
    import math

    from amgen.core import checks
    from amgen.core.errors import UserError

    try:
        wanted = [float(time) for time in times.split(",")]
    except ValueError:
        wanted = []
    if not wanted or not all(map(math.isfinite, wanted)):
        raise UserError(f"--times {times!r}: expected numbers such as 1,1.5,2")
    if out.suffix.lower() not in (".h5ad", ".npz", ".csv"):
        raise UserError(f"--out {out}: expected a file name that ends in .h5ad, .npz or .csv")
    if out.exists():
        raise UserError(f"--out {out} exists: choose another name, or remove it")
    sampler.check()
    checks.check_run(run)
    check_outputs({"--out": out})

    from amgen.core.processes import require_single
    from amgen.sampling.annotation import data_options
    from amgen.sampling.cells import trained_times
    from amgen.sampling.simulated_cells import simulate_cells

    require_single("amgen cells simulate")
    model = weights.load(run, runtime.device)
    options = data_options(model, data, {"time_key": time_key, "embedding": embedding})
    first = trained_times(model)[0] if start is None else start
    count, evaluations, growth, warning = simulate_cells(model, options, first, wanted, out, seed, model.options(sampler.changes()))
    print(f"wrote {out}: {count:,} cells of time {first:g} at {len(set(wanted))} times, NFE {evaluations}, total mass x {growth:.4g}")
    if warning is not None:
        print(warning)
    print(model.in_words(model.describe()))
