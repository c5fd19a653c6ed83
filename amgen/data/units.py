"""Standardized coordinates z of points: networks see z, tables and results hold x = origin + A z."""

import numpy as np
import torch
from torch import Tensor

from amgen.config import PopulationConfig
from amgen.core.errors import UserError
from amgen.data.messages import first_few

LARGEST = 1e30
"""Largest number in `origin` and `axes`."""

MAX_CONDITION = 1e12
"""Largest condition number of A; above it A counts as singular."""


class Units:
    """The affine map x = origin + A z between the coordinates x of points and their standardized coordinates z.

    Args:
        origin: centre, (D,).
        axes: A, invertible, (D, D); its columns are the axes of z in the coordinates x.

    Raises:
        UserError: if the shapes do not fit, a number is above 1e30, or A is singular.

    Example:
        >>> import numpy as np, torch
        >>> units = Units(origin=np.array([1.0, 2.0]), axes=np.diag([2.0, 4.0]))
        >>> z = units.transform(torch.tensor([[3.0, 2.0]]))
        >>> z
        tensor([[1., 0.]])
        >>> units.inverse_transform(z)
        tensor([[3., 2.]])
    """

    def __init__(self, origin: np.ndarray, axes: np.ndarray):
        dimension = len(origin)
        if np.shape(axes) != (dimension, dimension):
            raise UserError(f"data.axes has shape {np.shape(axes)}: expected ({dimension}, {dimension}), as data.origin has {dimension}")
        if not max(np.abs(origin).max(initial=0), np.abs(axes).max(initial=0)) <= LARGEST:
            raise UserError("data.origin or data.axes holds numbers above 1e30: leave both out to have them measured")
        if not np.linalg.cond(axes) < MAX_CONDITION:
            raise UserError("data.axes is singular: leave data.axes and data.origin out to have them measured")
        self.origin = torch.as_tensor(origin, dtype=torch.float64)
        self.axes = torch.as_tensor(axes, dtype=torch.float64)
        self._inverse = torch.linalg.inv(self.axes)

    @classmethod
    def measure(cls, points: np.ndarray, standardize: str) -> "Units":
        """Return the units in which `points` have mean 0 and variance 1.

        The numbers are rounded to 6 digits, so that they are short in the configuration and the same on all machines.

        Args:
            points: float64 (N, D).
            standardize: which matrix A to use, with mean m, deviations d (D,) and covariance C (D, D) of the points:
                `global`, A = sqrt(mean(d^2)) I, one scale for all columns, which keeps the ratios of distances;
                `columns`, A = diag(d), one scale for each column;
                `whiten`, A = V diag(sqrt(l)) of the eigenvectors V and eigenvalues l of C, which also makes the columns uncorrelated;
                `none`, A = I and origin 0, so that z is x.

        Raises:
            UserError: if a column is constant, or, for `whiten`, a linear combination of others.

        Example:
            >>> import numpy as np, torch
            >>> points = np.array([[0.0, 0.0], [2.0, 10.0]])
            >>> Units.measure(points, "columns").transform(torch.as_tensor(points))
            tensor([[-1., -1.],
                    [ 1.,  1.]])
        """
        dimension = points.shape[1]
        if standardize == "none":
            return cls(np.zeros(dimension), np.eye(dimension))
        deviations = points.std(axis=0)
        if standardize == "global":
            axes = np.sqrt(np.mean(deviations**2)) * np.eye(dimension)
        elif standardize == "columns":
            axes = np.diag(deviations)
        else:
            values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points, rowvar=False, bias=True)))
            axes = vectors * np.sqrt(values.clip(min=0))
        if np.linalg.svd(axes, compute_uv=False).min() <= 1e-6 * max(deviations.max(), np.finfo(float).tiny):
            raise UserError(
                f"data.standardize={standardize}: a column is constant or follows from the others: "
                "set data.standardize=none, or remove the column"
            )
        return cls(_rounded(points.mean(axis=0)), _rounded(axes))

    def transform(self, points: Tensor) -> Tensor:
        """Return z of x (..., D), float32, on the CPU."""
        return ((points.cpu().double() - self.origin) @ self._inverse.T).float()

    def inverse_transform(self, points: Tensor) -> Tensor:
        """Return x of z (..., D), float32, on the CPU."""
        return (self.origin + points.cpu().double() @ self.axes.T).float()


def recorded_units(options: PopulationConfig) -> Units | None:
    """Return the units that the options record, or None if they record none yet.

    Raises:
        UserError: if only one of `origin` and `axes` is recorded, or `axes` is not a matrix.
    """
    if (options.origin is None) != (options.axes is None):
        raise UserError("data.origin and data.axes go together: give both or neither")
    if options.origin is None or options.axes is None:
        return None
    lengths = [len(row) for row in options.axes]
    if len(set(lengths)) > 1:
        raise UserError(f"data.axes has rows of {first_few(lengths)} numbers: expected rows of the same length")
    return Units(np.asarray(options.origin), np.asarray(options.axes))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return the values rounded to 6 significant digits."""
    return np.vectorize(lambda value: float(f"{value:.6g}"))(values)
