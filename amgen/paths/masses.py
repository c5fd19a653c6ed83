"""Masses of samples that change in time, for unbalanced dynamics."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.paths.base import PathSample


class Masses:
    """Class histograms that move: m_t(z), the mass of a pair z, depends on its image's class.

    A class with share h in the data and shares h_0, h_1 at the ends has mass h_0/h at t = 0 and h_1/h at t = 1. In between it is
    interpolated linearly, which keeps the total mass at 1, or geometrically, which loses some.

    Args:
        data: share of each class in the data, in any unit, all positive.
        start: share of each class at t = 0; None for that in the data.
        end: share of each class at t = 1.
        interpolation: "linear" or "geometric".

    Raises:
        UserError: if the lengths differ or a class that should have mass has no data.
    """

    def __init__(self, data: Sequence[float], start: Sequence[float] | None, end: Sequence[float], interpolation: str = "linear"):
        for name, shares in {"start": start, "end": end}.items():
            if shares is not None and len(shares) != len(data):
                raise UserError(f"data.masses.{name} has {len(shares)} shares: expected one for each of the {len(data)} classes")
        if min(data) <= 0:
            raise UserError(f"class {list(data).index(min(data))} has no images: its mass cannot change")
        if interpolation not in ("linear", "geometric"):
            raise UserError(f"data.masses.interpolation={interpolation!r}: expected linear or geometric")
        self.start = _shares(data if start is None else start) / _shares(data)
        self.end = _shares(end) / _shares(data)
        self.interpolation = interpolation

    def __call__(self, t: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return m_t and d/dt log m_t at times `t` (B,) for samples of `classes` (B,), both (B,)."""
        start, end = self.start.to(t)[classes], self.end.to(t)[classes]
        if self.interpolation == "linear":
            mass = torch.lerp(start, end, t)
            return mass, (end - start) / mass
        rate = (end / start).log()
        return start * (rate * t).exp(), rate

    def weigh(self, sample: PathSample, classes: Tensor, boundary_classes: Tensor | None = None) -> PathSample:
        """Return a sample with the masses of its pairs, and of the pairs of its boundary (the same ones by default)."""
        ends = classes if boundary_classes is None else boundary_classes
        mass, growth = self(sample.t, classes)
        start, end = self.start.to(sample.t)[ends], self.end.to(sample.t)[ends]
        boundary = None if sample.boundary is None else replace(sample.boundary, start_mass=start, end_mass=end)
        return replace(sample, mass=mass, growth=growth, boundary=boundary)


def _shares(values: Sequence[float]) -> Tensor:
    shares = torch.tensor(list(values), dtype=torch.float64)
    return shares / shares.sum()
