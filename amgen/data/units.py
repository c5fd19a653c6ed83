"""Whitened coordinates: points are learned and moved as z, and come and go as x = origin + A z."""

import numpy as np
import torch
from torch import Tensor

from amgen.core.errors import UserError


class Units:
    """x = origin + A z.

    Args:
        origin: centre, (D,).
        axes: A, invertible, (D, D).

    Raises:
        UserError: if the shapes do not fit, or A is singular.
    """

    def __init__(self, origin: np.ndarray, axes: np.ndarray):
        dimension = len(origin)
        if np.shape(axes) != (dimension, dimension):
            raise UserError(f"data.axes has shape {np.shape(axes)}: expected ({dimension}, {dimension}), as data.origin has {dimension}")
        if not max(np.abs(origin).max(initial=0), np.abs(axes).max(initial=0)) <= 1e30:
            raise UserError("data.origin or data.axes holds numbers above 1e30: leave both out to have them measured")
        if not np.linalg.cond(axes) < 1e12:
            raise UserError("data.axes is singular: leave data.axes and data.origin out to have them measured")
        self.origin = torch.as_tensor(origin, dtype=torch.float64)
        self.axes = torch.as_tensor(axes, dtype=torch.float64)
        self._inverse = torch.linalg.inv(self.axes)

    @classmethod
    def measure(cls, points: np.ndarray, whiten: str) -> "Units":
        """Return the units in which `points` (N, D) have mean 0 and variance 1.

        Args:
            points: float64.
            whiten: "common", one deviation for all columns (distances keep their ratios); "columns", one for each; "full", the columns
                uncorrelated as well; "none", x itself.

        Numbers are rounded to 6 digits, so that their record reads well and machines agree on them.

        Raises:
            UserError: if a column is constant, or for "full", a combination of others.
        """
        dimension = points.shape[1]
        if whiten == "none":
            return cls(np.zeros(dimension), np.eye(dimension))
        deviations = points.std(axis=0)
        if whiten == "common":
            axes = np.sqrt(np.mean(deviations**2)) * np.eye(dimension)
        elif whiten == "columns":
            axes = np.diag(deviations)
        else:
            values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points, rowvar=False, bias=True)))
            axes = vectors * np.sqrt(values.clip(min=0))
        if np.linalg.svd(axes, compute_uv=False).min() <= 1e-6 * max(deviations.max(), np.finfo(float).tiny):
            raise UserError(f"data.whiten={whiten}: a column is constant or follows from the others: set data.whiten=none or drop it")
        return cls(_rounded(points.mean(axis=0)), _rounded(axes))

    def transform(self, points: Tensor) -> Tensor:
        """Map x (..., D) to z, float32, on the CPU."""
        return ((points.cpu().double() - self.origin) @ self._inverse.T).float()

    def inverse_transform(self, points: Tensor) -> Tensor:
        """Map z (..., D) to x, float32, on the CPU."""
        return (self.origin + points.cpu().double() @ self.axes.T).float()


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: float(f"{value:.6g}"))(values)
