"""The neighbourhood of the training data of a population: where an action was trained, and where it only extrapolates.

At time t an action was trained on points x_t of the path. A sample of N of them is the reference. A point is outside if its distance to the
nearest of them is above the radius

    r(t) = 1.5 q(t),   q(t) the 99 % quantile of the distances within the reference, of each point to the nearest other one.

So points with the distribution of x_t are outside with a probability below 1 %: their distances have the same quantile. The radius scales
with the points. Far from the data all points are outside.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from amgen.paths.base import Path

FACTOR, QUANTILE = 1.5, 0.99

MOST_POINTS = 2_000
"""Most tuples of a reference."""

MOST_NUMBERS = 2_000_000
"""Most numbers in the tuples of a reference, 8 MB in a checkpoint."""

WARN_ABOVE = 0.05
"""Share of points outside above which a line says so; of points like the training data less than 0.01 are outside."""

CHUNK = 4_000
"""Points whose distances to the reference are computed together."""


class Neighbourhood:
    """Tells which points are near those that an action was trained on.

    Args:
        path: the path of the training.
        noise: standard normal noise of N training items, (N, D).
        data: their multi-marginal tuples, (N, rows, D + 1), in standardized coordinates.

    Example:
        >>> import torch
        >>> from amgen.paths import Neighbourhood, SnapshotPath
        >>> points = torch.randn(500, 2, 2, generator=torch.Generator().manual_seed(0))  # 500 pairs of points in the plane
        >>> tuples = torch.cat([points, torch.ones(500, 2, 1)], dim=2)
        >>> near = Neighbourhood(SnapshotPath([0, 1]), torch.zeros(500, 2), tuples)
        >>> near.share_outside(points[:, 0], t=0.0) < 0.01
        True
        >>> near.share_outside(points[:, 0] + 20, t=0.0)
        1.0
    """

    def __init__(self, path: Path, noise: Tensor, data: Tensor):
        self.path = path
        self.noise = noise.cpu().double()
        self.data = data.cpu().double()
        self._period = getattr(path, "period", None)
        self._references: dict[float, tuple[Tensor, float]] = {}

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors to make the neighbourhood again, float32 by the name of the argument."""
        return {"noise": self.noise.float(), "data": self.data.float()}

    def outside(self, x: Tensor, t: float) -> Tensor:
        """Return which points are outside, bool (N,). Those with values that are not finite are.

        Args:
            x: points in standardized coordinates, (N, D).
            t: time in [0, 1].
        """
        reference, radius = self._reference(t)
        points = self._embed(x.detach().cpu().double())
        finite = points.isfinite().all(dim=1)
        distances = [torch.cdist(part, reference).amin(dim=1) for part in points.nan_to_num(0, 0, 0).split(CHUNK)]
        return ~finite | (torch.cat(distances) > radius) if distances else ~finite

    def share_outside(self, x: Tensor, t: float) -> float:
        """Return the share of the points that are outside, in [0, 1]; arguments as for `outside`."""
        return float(self.outside(x, t).double().mean()) if len(x) else 0.0

    def radius(self, t: float) -> float:
        """Return the largest distance to the reference at time `t` that is inside, in standardized coordinates."""
        return self._reference(t)[1]

    def _reference(self, t: float) -> tuple[Tensor, float]:
        """Return the reference (N, D) at a time and the radius. They are kept for the next call."""
        t = min(max(t, 0.0), 1.0)
        if t not in self._references:
            points, radius = self._measure(t)
            if radius is None:  # one point, again and again: as far as the points of other times are from one another
                others = [self._measure(time)[1] for time in (0.0, 0.25, 0.5, 0.75, 1.0)]
                radius = max((other for other in others if other is not None), default=0.0)
            self._references[t] = points, radius
        return self._references[t]

    def _measure(self, t: float) -> tuple[Tensor, float | None]:
        time = self.data.new_full((len(self.data),), t)
        # Through `sample`, as in training. Just before t = 1, since a path with pairs of its own in each interval has none after it.
        points = self._embed(self.path.sample(time.clamp(max=1 - 1e-12), self.noise, self.data).x)
        return points, _radius(points)

    def _embed(self, x: Tensor) -> Tensor:
        """Return points whose distances are those on the torus, nearly, if there is one."""
        if self._period is None:
            return x
        angle = 2 * torch.pi / self._period * x
        return torch.cat([angle.cos(), angle.sin()], dim=1) * (self._period / (2 * torch.pi))


def reference_size(counts: Sequence[int], numbers: int) -> int:
    """Return how many tuples a reference has.

    Args:
        counts: number of points at each time.
        numbers: numbers in a tuple and its noise.
    """
    return max(2, min(MOST_POINTS, max(counts), MOST_NUMBERS // numbers))


def describe_outside(times: Sequence[float], shares: Sequence[float]) -> str | None:
    """Return a line about the time with the largest share of points outside, in words, with what to do; None if there are few.

    Args:
        times: the times, in the unit of the table.
        shares: share of the points that are outside at each of them.

    Example:
        >>> from amgen.paths.neighbourhood import describe_outside
        >>> describe_outside([1, 2], [0.0, 0.12])[:62]
        '12 % of the points left the neighbourhood of the training data'
        >>> describe_outside([1, 2], [0.0, 0.01]) is None
        True
    """
    worst = max(range(len(times)), key=lambda place: shares[place], default=None)
    if worst is None or shares[worst] <= WARN_ABOVE:
        return None
    return (
        f"{100 * shares[worst]:.0f} % of the points left the neighbourhood of the training data by t = {times[worst]:g}: the action is "
        "extrapolated there. Start from points like those of the training data, train longer, or smooth the data with path.noise=0.1"
    )


def _radius(points: Tensor) -> float | None:
    """Return the radius of a reference (N, D); None if it has fewer than two distinct points."""
    scale = float((points - points.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    nearest = []
    for start in range(0, len(points), CHUNK):
        distances = torch.cdist(points[start : start + CHUNK], points)
        # Copies of a point, and the point itself, say nothing about how dense the points are.
        distances[distances <= 1e-6 * scale] = torch.inf
        nearest.append(distances.amin(dim=1))
    found = torch.cat(nearest)
    found = found[found.isfinite()]
    return FACTOR * float(found.quantile(QUANTILE)) if len(found) else None
