"""Where do cells move, and what becomes of them? The figure of docs/your-population.md, from the file of `amgen cells write`.

On the first two coordinates, one panel each: the cells by time with their velocities, averaged over a grid, and the written trajectories;
the pseudo-potential; the growth rate, if it is not zero; the most probable fate, more opaque the more probable it is. Takes seconds. Needs
anndata and matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import new_parser, parse, script
from scipy.spatial import cKDTree

CELLS = 18
"""Arrows along each axis."""


def arrows(points: np.ndarray, velocities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places on a grid near cells (M, 2) and the mean velocities there (M, 2), by a Gaussian kernel of the width of the grid."""
    low, high = points.min(axis=0), points.max(axis=0)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, CELLS).T), axis=-1).reshape(-1, 2)
    width = ((high - low) / CELLS).mean()
    near = cKDTree(points).query_ball_point(grid, 2 * width)
    kept = [place for place, rows in enumerate(near) if len(rows) >= 3]
    means = []
    for place in kept:
        weights = np.exp(-((points[near[place]] - grid[place]) ** 2).sum(axis=1) / (2 * width**2))
        means.append(np.average(velocities[near[place]], axis=0, weights=weights))
    return grid[kept], np.array(means)


def draw(cells: Any, label: str, basis: str, file: Path) -> None:
    """Draw the figure of an AnnData object."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points, velocities = cells.obsm[f"X_{basis}"][:, :2], cells.obsm[f"velocity_{basis}"][:, :2]
    about = cells.uns["amgen"]
    time = cells.obs[about["time_key"]].astype(str).str.extract(r"(-?\d+\.?\d*)")[0].astype(float).to_numpy()
    grows = bool(np.nanmax(np.abs(cells.obs["amgen_growth"])) > 0)
    figure, axes = pyplot.subplots(1, 4 if grows else 3, figsize=(17 if grows else 13, 4), constrained_layout=True)
    panels = list(axes)
    shown = panels[0].scatter(*points.T, c=time, s=18, cmap="viridis", alpha=0.7, linewidths=0)
    figure.colorbar(shown, ax=panels[0], label=about["time_key"])
    if "trajectories" in about:
        for way in about["trajectories"]["points"].transpose(1, 0, 2):
            panels[0].plot(way[:, 0], way[:, 1], color="0.6", linewidth=0.7, zorder=1)
    places, means = arrows(points, velocities)
    panels[0].quiver(*places.T, *means.T, angles="xy", width=0.0035, zorder=3)
    panels[0].set_title("time, velocity, trajectories")
    columns = [("amgen_potential", "pseudo-potential")] + ([("amgen_growth", "growth rate")] if grows else [])
    for panel, (column, title) in zip(panels[1:], columns, strict=False):
        values = cells.obs[column].to_numpy()
        most = np.nanquantile(np.abs(values), 0.98)
        shown = panel.scatter(*points.T, c=values, s=18, cmap="RdBu_r", vmin=-most, vmax=most, linewidths=0)
        figure.colorbar(shown, ax=panel)
        panel.set_title(title)
    names, shares = list(about["fate_names"]), cells.obsm["fates"]
    colours = pyplot.get_cmap("tab10")(np.arange(len(names)) % 10)
    best = shares.argmax(axis=1)
    rgba = colours[best]
    rgba[:, 3] = 0.15 + 0.85 * shares.max(axis=1)
    panels[-1].scatter(*points.T, c=rgba, s=18, linewidths=0)
    for place in np.unique(best):
        panels[-1].scatter([], [], color=colours[place], label=names[place], s=15)
    panels[-1].legend(fontsize=8, frameon=False)
    panels[-1].set_title(f"fate: {label} at the last time")
    for panel in panels:
        panel.set(xlabel=f"{basis} 1", ylabel=f"{basis} 2", xticks=[], yticks=[])
    figure.savefig(file, dpi=110)


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and the file, and draw."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("cells", type=Path, help="file of amgen cells write --fates")
    parser.add_argument("--label", type=str, default="cell_type", help="column of the fates, for the title")
    parser.add_argument("--basis", type=str, default="amgen_pca", help="name of the coordinates, as in obsm without X_")
    parser.add_argument("--figure", type=Path, default=Path("single-cells.png"), help="file for the figure: .png, .pdf or .svg")
    options = parse(parser, arguments)
    import anndata

    draw(anndata.read_h5ad(options.cells), options.label, options.basis, options.figure)
    print(f"wrote {options.figure}")


if __name__ == "__main__":
    main()
