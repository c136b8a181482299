"""Linear least squares with a norm penalty: best responses without training, exact.

The penalty of the paper's released code is exp(λ) times the norm of the weights, not its square.
min_W |X W - Y|² + 2 t |W| is then at the ridge solution (XᵀX + μ I) W = XᵀY whose μ = t / |W|,
and at zero if t ≥ |XᵀY|. As μ |W(μ)| grows with μ, μ is found by bisection.
"""

from dataclasses import dataclass

import numpy as np


HALVINGS = 60  # of an interval of 120


@dataclass(frozen=True)
class Path:
    """min_W |X W - Y|² + 2 t |W| for any t.

    Attributes:
        basis: ``(F, r)`` eigenvectors of XᵀX.
        values: ``(r,)`` their eigenvalues.
        target: ``(r, C)`` XᵀY in that basis.
    """

    basis: np.ndarray
    values: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "Path":
        """The path of `x` (n, F) and `y` (n, C)."""
        if len(x) < x.shape[1]:  # no more directions than examples
            values, left = np.linalg.eigh(x @ x.T)
            kept = values > 1e-10 * values[-1]
            values, basis = values[kept], x.T @ left[:, kept] / np.sqrt(values[kept])
        else:
            values, basis = np.linalg.eigh(x.T @ x)
        return cls(basis, values.clip(min=0), basis.T @ (x.T @ y))

    def column(self, c: int) -> "Path":
        """The path of one output alone."""
        return Path(self.basis, self.values, self.target[:, c : c + 1])

    def inside(self, t: float) -> np.ndarray:
        """The best response in the basis (r, C)."""
        squares = (self.target**2).sum(1)  # (r,)
        if t >= np.sqrt(squares.sum()):
            return np.zeros_like(self.target)
        low, high = -60.0, 60.0  # of log μ
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            mu = np.exp(middle)
            norm = np.sqrt((squares / (self.values + mu) ** 2).sum())
            low, high = (low, middle) if mu * norm > t else (middle, high)
        return self.target / (self.values + np.exp(low))[:, None]

    def weights(self, t: float) -> np.ndarray:
        """The best response (F, C)."""
        return self.basis @ self.inside(t)
