r"""The hypernetwork's prior: gates, an infinitely wide trunk and a Gaussian head, integrated out.

The hypernetwork maps a configuration λ to the weights of a response model,

.. math:: w(λ) = W ψ(g ∘ e(λ)), \qquad W \sim \mathcal N(0, I),

with the embedding e(λ) of :mod:`optuna_hypernet.space`, one gate g_j = exp ρ_j per input of it
(relevance, as in automatic relevance determination) and a trunk ψ with three parts: linear units,
error-function units of one hidden layer, and random Fourier units. Only final values are seen
here, so w(λ) is one number: the predicted level. With infinitely many units the head can be
integrated out, and what is left is the covariance of responses:

.. math::
    k(a, b) = \frac{v_1}{d} a \cdot b
            + v_2 \frac{2}{π} \arcsin \frac{2 (β + a \cdot b)}
              {\sqrt{(1 + 2 (β + a \cdot a)) (1 + 2 (β + b \cdot b))}}
            + v_3 c(r) + v_4 c(8 r),
            \qquad c(r) = (1 + r + r^2 / 3) e^{-r}, \quad r = \sqrt 5 |a - b|,

for gated embeddings a and b. The second term is the network of Williams (1998, "Computation with
infinite neural networks", eq. 11), the third is Matérn 5/2 (Rasmussen & Williams 2006, eq. 4.17).
The fourth is the same one eight times closer up. Trainings are repeatable but not smooth (error
rates are counts, forests are drawn from a seed): what the smooth terms cannot explain belongs to
the configuration and its immediate neighbours. Taken for noise, it would send the sampler back to
them again and again.

The prior mean is a shallow bowl, the same for all members,

.. math:: m(λ) = \frac{0.3}{\sqrt d} \sum_j (e_j(λ)^2 - \tfrac 1 3) + t \cdot e(λ),

over the numeric parameters: people choose ranges around what they find plausible. The tilt t is
zero but for columns of which it is known that high ones are bad, such as a predicted loss.

Notation: ``M`` members with their own weights, ``n`` or ``m`` rows, ``d`` inputs, ``D`` embedding
columns; ``theta (M, d + 6)`` holds logarithms: ``d`` gates, v_1, ..., v_4, β, noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


Array = NDArray[np.float64]

#: Number of entries of ``theta`` beyond the gates: v_1, ..., v_4, β, noise.
N_SHARED = 6

#: Least noise variance: keeps the covariance of repeated configurations invertible.
JITTER = 1e-6


# How many times closer up the rough term is: a power of two, see ``covariance``.
_CLOSER = 8.0

# How much higher the prior mean is at the ends of a range than in the middle, times sqrt(d), in
# standard deviations of the responses.
_RISE = 0.3


class Columns(NamedTuple):
    """What the columns of an embedding are.

    Attributes:
        owner: ``(D,)`` the input that each one belongs to, ascending from 0.
        ranged: ``(D,)`` true for a number that goes from -1 to 1 over its range.
        tilt: ``(D,)`` by how much the prior mean of a response rises with each.
    """

    owner: NDArray[np.int64]
    ranged: NDArray[np.bool_]
    tilt: Array

    @property
    def d(self) -> int:
        """Number of inputs."""
        return int(self.owner[-1]) + 1


class Hypernetwork:
    """Prior over responses, for ``M`` members at once.

    Args:
        theta: ``(M, d + 6)`` logarithms of the gates, v_1, ..., v_4, β and noise variance.
        columns: Of the embeddings.
    """

    def __init__(self, theta: Array, columns: Columns) -> None:
        self.theta = theta
        self._columns = columns
        self.d = theta.shape[1] - N_SHARED
        self._gates = np.exp(theta[:, : self.d])[:, None, columns.owner]  # (M, 1, D)
        shared = np.exp(theta[:, self.d :]).T[:, :, None, None]  # (6, M, 1, 1)
        self._linear = shared[0] / self.d
        self._arcsine, self._matern, self._rough, self._bias = shared[1:5]
        self._rise = _RISE / math.sqrt(self.d) * columns.ranged
        self._tilt = columns.tilt
        self.noise: Array = shared[5, :, 0, 0] + JITTER  # (M,)

    def only(self, member: int) -> Hypernetwork:
        """The prior of one member."""
        return Hypernetwork(self.theta[member : member + 1], self._columns)

    def gate(self, embedding: Array) -> Array:
        """Gated embeddings ``(M, n, D)``."""
        return np.asarray(embedding * self._gates)

    def ungate(self, gradient: Array) -> Array:
        """Gradient by the embedding ``(M, n, D)`` from one by the gated embedding."""
        return np.asarray(gradient * self._gates)

    def mean(self, embedding: Array) -> Array:
        """Prior mean ``(n,)`` at embeddings ``(n, D)``, the same for all members."""
        return np.asarray((embedding * embedding - 1 / 3) @ self._rise + embedding @ self._tilt)

    def mean_slope(self, embedding: Array) -> Array:
        """Derivative ``(n, D)`` of the prior mean by the embedding."""
        return np.asarray(2 * embedding * self._rise + self._tilt)

    def variance(self, a: Array) -> tuple[Array, Array]:
        """Prior variance ``(M, n)`` at gated rows, and its derivative by |a|^2."""
        square = np.einsum("mnd,mnd->mn", a, a)
        bias = self._bias[:, :, 0]
        wide = 1 + 2 * (square + bias)
        value = (
            self._linear[:, 0] * square
            + self._arcsine[:, 0] * (2 / np.pi) * np.arcsin(1 - 1 / wide)
            + self._matern[:, 0]
            + self._rough[:, 0]
        )
        # d/dq arcsin(1 - 1/q) = 1 / (q sqrt(2 q - 1)), and dq = 2 d|a|^2.
        slope = self._linear[:, 0] + self._arcsine[:, 0] * (4 / np.pi) / (
            wide * np.sqrt(2 * wide - 1)
        )
        return value, slope

    def covariance(self, a: Array, b: Array) -> Covariance:
        """Covariance of the responses at gated rows ``a (M, n, D)`` and ``b (M, m, D)``."""
        aa = np.einsum("mnd,mnd->mn", a, a)[:, :, None]
        bb = np.einsum("mnd,mnd->mn", b, b)[:, None, :]
        shrink_a = np.sqrt(2 / (1 + 2 * (aa + self._bias)))
        shrink_b = np.sqrt(2 / (1 + 2 * (bb + self._bias)))
        # In place wherever it can be: at hundreds of rows, memory is what takes the time.
        dot = a @ b.transpose(0, 2, 1)
        cosine = dot + self._bias
        cosine *= shrink_a
        cosine *= shrink_b
        r = -2 * dot
        r += aa
        r += bb
        np.maximum(r, 0, out=r)
        r *= 5
        np.sqrt(r, out=r)
        decay = np.exp(-r)
        near = decay * decay
        near *= near
        near *= near  # to the power of _CLOSER
        smooth, rough = _bump(r, decay), _bump(_CLOSER * r, near)
        angle = np.arcsin(cosine)
        angle *= 2 / np.pi
        value = self._linear * dot
        value += self._arcsine * angle
        value += self._matern * smooth
        value += self._rough * rough
        return Covariance(
            value, a, b, dot, shrink_a, shrink_b, cosine, angle, smooth, rough, r, decay, near
        )

    def pull(self, weight: Array, at: Covariance) -> Array:
        """Gradient by ``a (M, n, D)`` of sum(weight * k(a, b)), ``b`` held still.

        Args:
            weight: ``(M, n, m)`` derivative of some quantity by the covariance.
            at: What :meth:`covariance` returned for ``a`` and ``b``.
        """
        arcsine = self._arcsine * self._arcsine_slope(at)  # by the cosine
        # By |a - b|^2: c(s r) has the derivative -5/6 s^2 (1 + s r) e^(-s r).
        matern = self._matern * (1 + at.r) * at.decay
        matern += self._rough * _CLOSER**2 * (1 + _CLOSER * at.r) * at.near
        matern *= -5 / 6
        by_dot = weight * (self._linear + arcsine * at.shrink_a * at.shrink_b - 2 * matern)
        by_square = weight * (matern - arcsine * at.cosine * at.shrink_a**2 / 2)
        return np.asarray(by_dot @ at.b + 2 * by_square.sum(2, keepdims=True) * at.a)

    def pull_theta(self, weight: Array, at: Covariance) -> Array:
        """Gradient by ``theta (M, d + 6)`` of sum(weight * (k(a, a) + noise I)).

        Args:
            weight: ``(M, n, n)``, symmetric.
            at: What :meth:`covariance` returned for ``a`` and ``a``.
        """
        by_gate = 2 * np.einsum("mnd,mnd->md", self.pull(weight, at), at.a)
        first = np.flatnonzero(np.diff(self._columns.owner, prepend=-1))
        # By β, once through the numerator and twice, by symmetry, through the denominator.
        shrink = at.shrink_a * at.shrink_b - at.cosine * at.shrink_a**2
        slope = self._arcsine_slope(at) * shrink
        shared = [
            self._linear[:, 0, 0] * np.einsum("mij,mij->m", weight, at.dot),
            self._arcsine[:, 0, 0] * np.einsum("mij,mij->m", weight, at.angle),
            self._matern[:, 0, 0] * np.einsum("mij,mij->m", weight, at.smooth),
            self._rough[:, 0, 0] * np.einsum("mij,mij->m", weight, at.rough),
            (self._arcsine * self._bias)[:, 0, 0] * np.einsum("mij,mij->m", weight, slope),
            (self.noise - JITTER) * np.einsum("mii->m", weight),
        ]
        return np.concatenate([np.add.reduceat(by_gate, first, axis=1), np.stack(shared, 1)], 1)

    @staticmethod
    def _arcsine_slope(at: Covariance) -> Array:
        """Derivative of ``angle`` by ``cosine``, which stays below 1."""
        return np.asarray((2 / np.pi) / np.sqrt(1 - at.cosine * at.cosine))


class Covariance(NamedTuple):
    """``value (M, n, m)`` and what its gradients need, under the names of the formula above."""

    value: Array
    a: Array  # (M, n, D)
    b: Array  # (M, m, D)
    dot: Array
    shrink_a: Array  # (M, n, 1), sqrt(2 / (1 + 2 (β + |a|^2)))
    shrink_b: Array  # (M, 1, m)
    cosine: Array  # what the arcsine is taken of
    angle: Array
    smooth: Array  # c(r)
    rough: Array  # c(8 r)
    r: Array
    decay: Array  # exp(-r)
    near: Array  # exp(-8 r)


def _bump(r: Array, decay: Array) -> Array:
    """c(r) = (1 + r + r^2 / 3) exp(-r), given the exponential."""
    bump = r / 3
    bump += 1
    bump *= r
    bump += 1
    bump *= decay
    return np.asarray(bump)
