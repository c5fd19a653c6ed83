"""Masses of samples that change in time, for unbalanced dynamics."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.names import MASS_INTERPOLATION, MassInterpolation
from amgen.paths.base import Constant, PathSample


class Masses:
    """Masses of images by their class: the frequencies of the classes change from t = 0 to t = 1.

    A class with frequency h in the data, h_0 at t = 0 and h_1 at t = 1 has the masses m_0 = h_0 / h and m_1 = h_1 / h. In between,

        linear:     m_t = (1 - t) m_0 + t m_1,    which keeps the total mass at 1
        geometric:  m_t = m_0^(1 - t) m_1^t,      which loses some in between

    Args:
        data: frequency of each class in the data, in any unit, all positive.
        start: frequency of each class at t = 0; None for that in the data.
        end: frequency of each class at t = 1.
        interpolation: "linear" or "geometric".

    Raises:
        UserError: if the lengths differ, or a class has no images.

    Example:
        >>> import torch
        >>> from amgen.paths import Masses
        >>> masses = Masses(data=[1, 1], start=None, end=[1, 3])
        >>> mass, growth = masses(torch.tensor([0.0, 1.0]), torch.tensor([1, 1]))
        >>> mass.tolist()
        [1.0, 1.5]
    """

    def __init__(
        self,
        data: Sequence[float],
        start: Sequence[float] | None,
        end: Sequence[float],
        interpolation: MassInterpolation = MASS_INTERPOLATION,
    ):
        for name, shares in {"start": start, "end": end}.items():
            if shares is not None and len(shares) != len(data):
                raise UserError(f"data.masses.{name} has {len(shares)} shares: expected one for each of the {len(data)} classes")
        if min(data) <= 0:
            raise UserError(f"class {list(data).index(min(data))} has no images: its mass cannot change")
        if interpolation not in get_args(MassInterpolation):
            raise UserError(f"data.masses.interpolation={interpolation!r}: expected linear or geometric")
        self.start = _shares(data if start is None else start) / _shares(data)
        self.end = _shares(end) / _shares(data)
        self._ends = Constant(torch.stack([self.start, self.end]))
        self.interpolation = interpolation

    def __call__(self, t: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return m_t and d/dt log m_t at times `t` (B,) for samples of `classes` (B,), both (B,)."""
        start, end = self._ends.like(t)[:, classes]
        if self.interpolation == "linear":
            mass = torch.lerp(start, end, t)
            return mass, (end - start) / mass
        rate = (end / start).log()
        return start * (rate * t).exp(), rate

    def weigh(self, sample: PathSample, classes: Tensor, boundary_classes: Tensor | None = None) -> PathSample:
        """Return a sample with the masses of its pairs, and of the pairs of its boundary (by default the same pairs)."""
        ends = classes if boundary_classes is None else boundary_classes
        mass, growth = self(sample.t, classes)
        cell = None if sample.boundary is None else sample.boundary.cell
        start, end = self._ends.like(sample.t)[:, ends] if cell is None else (self(time, ends)[0] for time in cell)
        boundary = None if sample.boundary is None else replace(sample.boundary, start_mass=start, end_mass=end)
        return replace(sample, mass=mass, growth=growth, boundary=boundary)


def _shares(values: Sequence[float]) -> Tensor:
    shares = torch.tensor(list(values), dtype=torch.float64)
    return shares / shares.sum()
