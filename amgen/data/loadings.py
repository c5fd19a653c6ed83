"""Principal components of gene expression: mean and loadings, which map cells to scores and velocities back to genes.

Symbols: x (G,) is the expression of a cell, m its mean over the training cells, W (D, G) the loadings, orthonormal rows. The scores of a
cell are z = W (x - m); a velocity v (D,) of the scores is the velocity W^T v (G,) of the expression.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.files import replacing
from amgen.data.messages import first_few

FILE = "loadings.safetensors"
"""Name of the file in a run directory."""

EXACT = 2048
"""Largest number of cells or genes, whichever is smaller, for which all eigenvectors are computed; above it Lanczos iterations find D."""

CHUNK = 2048
"""Cells that are made dense at once."""


@dataclass(frozen=True)
class Loadings:
    """Mean and loadings of principal components.

    Attributes:
        mean: m, float32 (G,).
        components: W, float32 (D, G); rows are orthonormal, in the order of falling variance.
        genes: names of the G genes.

    Example:
        >>> import numpy as np
        >>> from amgen.data.loadings import Loadings
        >>> expression = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]], dtype=np.float32)
        >>> found = Loadings.fit(expression, 1, ["Sox2", "Actb"])
        >>> found.project(expression).tolist()
        [[-2.0], [0.0], [2.0]]
        >>> found.to_genes(np.array([[3.0]])).tolist()
        [[3.0, 0.0]]
    """

    mean: np.ndarray
    components: np.ndarray
    genes: Sequence[str]

    @classmethod
    def fit(cls, expression: Any, dimension: int, genes: Sequence[str]) -> "Loadings":
        """Return the first principal components of cells. The largest entry of each is positive.

        Args:
            expression: float32 (N, G), an array or a SciPy matrix in CSR format, which is not made dense as a whole.
            dimension: D, at most N - 1 and at most G.
            genes: names of the G genes.

        Raises:
            UserError: if there are too few cells or genes.
        """
        count, width = expression.shape
        if dimension > min(count - 1, width):
            raise UserError(
                f"data.dimension={dimension}, data.embedding=pca: {count:,} training cells with {width:,} genes have at most "
                f"{max(0, min(count - 1, width)):,} principal components"
            )
        mean = np.asarray(expression.mean(axis=0, dtype=np.float64)).reshape(-1).astype(np.float32)
        if min(count, width) <= EXACT:
            components = _exact(expression, mean.astype(np.float64), dimension)
        else:
            components = _lanczos(expression, mean, dimension)
        largest = components[np.arange(dimension), np.abs(components).argmax(axis=1)]
        return cls(mean, (components * np.where(largest < 0, -1, 1)[:, None]).astype(np.float32), list(genes))

    @property
    def dimension(self) -> int:
        """Number of components D."""
        return len(self.components)

    @property
    def sha256(self) -> str:
        """Checksum of the genes, the mean and the loadings, hexadecimal."""
        found = hashlib.sha256("\n".join(self.genes).encode())
        for values in (self.mean, self.components):
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    def project(self, expression: Any) -> np.ndarray:
        """Return the scores of cells (N, G), an array or a SciPy matrix in CSR format, as float64 (N, D) rounded to single precision."""
        weights = self.components.T.astype(np.float64)
        offset = self.mean.astype(np.float64) @ weights
        parts = [
            np.asarray(expression[start : start + CHUNK].astype(np.float64) @ weights) - offset
            for start in range(0, expression.shape[0], CHUNK)
        ]
        # Rounded, so that another machine, which sums in another order, finds the same numbers and hence the same fingerprint.
        return np.concatenate([np.zeros((0, self.dimension)), *parts]).astype(np.float32).astype(np.float64)

    def to_genes(self, velocities: np.ndarray) -> np.ndarray:
        """Return velocities of genes, float32 (N, G), of velocities of scores (N, D)."""
        return velocities.astype(np.float32) @ self.components

    def columns(self, genes: Sequence[str], name: str) -> np.ndarray | None:
        """Return the places of the loadings' genes among other `genes`; None if they are the same in the same order.

        Raises:
            UserError: if some are missing, or a name is there twice; `name` is that of the file, for the error.
        """
        if list(genes) == list(self.genes):
            return None
        places = {gene: place for place, gene in enumerate(genes)}
        if len(places) < len(genes):
            raise UserError(f"{name} has names of genes twice, and other genes than the run: call adata.var_names_make_unique()")
        missing = [gene for gene in self.genes if gene not in places]
        if missing:
            raise UserError(
                f"{name} lacks {len(missing):,} of the {len(self.genes):,} genes whose principal components the run uses: "
                f"{first_few(missing, 3)}: give a file with those genes"
            )
        return np.array([places[gene] for gene in self.genes])

    def tensors(self) -> dict[str, Tensor]:
        """Return the loadings as tensors, for files."""
        names = np.frombuffer(json.dumps(list(self.genes)).encode(), dtype=np.uint8).copy()
        arrays = {"mean": self.mean, "components": self.components, "genes": names}
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Loadings":
        """Return the loadings in `tensors`; errors are those of missing or wrong entries."""
        mean, components = tensors["mean"].numpy(), tensors["components"].numpy()
        genes = json.loads(tensors["genes"].numpy().tobytes())
        if components.ndim != 2 or mean.shape != (len(genes),) or components.shape[1] != len(genes):
            raise ValueError(f"mean {mean.shape}, components {components.shape} and {len(genes)} genes do not fit")
        return cls(mean, components, genes)

    def save(self, file: Path) -> None:
        """Write the loadings atomically, with the permissions that the umask gives.

        Raises:
            UserError: if the file cannot be written.
        """
        with replacing(file) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode & 0o777
            try:
                save_file(self.tensors(), temporary)
            except SafetensorError as error:  # raised for a full disk
                raise UserError(f"cannot write {file}: {error}") from None
            temporary.chmod(mode)

    @classmethod
    def load(cls, file: Path) -> "Loadings":
        """Read loadings that `save` wrote.

        Raises:
            UserError: if the file is missing or damaged.
        """
        try:
            with safe_open(file, framework="pt") as opened:
                return cls.from_tensors({name: opened.get_tensor(name) for name in ("mean", "components", "genes")})
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise UserError(f"cannot read {file}, the loadings of the run's principal components: {reason}: copy it from the run") from None


def _exact(expression: Any, mean: np.ndarray, dimension: int) -> np.ndarray:
    """Return W from the eigenvectors of the smaller of the two matrices of products, (G, G) or (N, N)."""
    count, width = expression.shape
    if width <= count:
        products = np.zeros((width, width))
        for start in range(0, count, CHUNK):
            block = _dense(expression[start : start + CHUNK]) - mean
            products += block.T @ block
        return np.linalg.eigh(products)[1][:, ::-1][:, :dimension].T
    centred = _dense(expression) - mean  # at most EXACT cells
    values, vectors = np.linalg.eigh(centred @ centred.T)
    if values[-dimension] <= 1e-10 * max(values[-1], np.finfo(float).tiny):
        raise UserError(f"data.dimension={dimension}, data.embedding=pca: the training cells span fewer dimensions: set a smaller one")
    return (vectors[:, ::-1][:, :dimension].T @ centred) / np.sqrt(values[::-1][:dimension])[:, None]


def _lanczos(expression: Any, mean: np.ndarray, dimension: int) -> np.ndarray:
    """Return W by Lanczos iterations from a fixed start, without making the cells dense."""
    transposed = expression.T
    operator = LinearOperator(
        expression.shape,
        matvec=lambda v: expression @ v.reshape(-1).astype(np.float32) - mean @ v.reshape(-1),
        rmatvec=lambda u: transposed @ u.reshape(-1).astype(np.float32) - mean * u.sum(),
        dtype=np.float32,
    )
    start = np.random.default_rng(0).standard_normal(min(expression.shape)).astype(np.float32)
    _, values, rows = svds(operator, k=dimension, v0=start, solver="arpack")
    return np.linalg.qr(rows[np.argsort(values)[::-1]].T.astype(np.float64))[0].T


def _dense(block: Any) -> np.ndarray:
    """Return a block of cells as a dense array, float64."""
    return np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)
