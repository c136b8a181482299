"""Two theorems of the paper as numbers, on scikit-learn's diabetes, without any training.

Gating (section 3.1). A linear net of two layers, ŷ = sᵀ Q x, under the squared error and e^λ times
the squared norm of its Jacobian ∂ŷ/∂x = Qᵀ s. One best response is Q*(λ) = diag(σ(c - λ)) Q₀ and
s* = s₀: one net, whose hidden units a sigmoid of λ gates. The rows of Q₀ are the principal
components of the data, s₀ are the coefficients without a penalty, e^c the components' variances.

Jacobian (section 3.3). If the training loss is quadratic in weights and λ together, the affine
response that minimises E L_T(w + J ε, λ̂ + ε) has the Jacobian of the best response, however wide ε
is. Ridge regression is not: e^λ bends. There the error grows with the spread σ.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.func import grad
from torch.func import jacrev

from benchmarks import figures


CENTRE = -1.0  # λ̂ of the second theorem
SCALES = (0.1, 0.3, 0.5, 1.0, 2.0)
LAMBDAS = np.linspace(-6, 6, 25)
N_TRAIN, N_VALID = 60, 180
NODES = 40  # of Gauss-Hermite quadrature: exact to all digits here

Loss = Callable[[Tensor, Tensor], Tensor]  # of weights (P,) and λ (), a scalar


@dataclass(frozen=True)
class Ridge:
    """L_T = |X w - y|²/n + e^λ |w|², L_V without the penalty; columns of X are standardised."""

    x: Tensor  # (n, P)
    y: Tensor  # (n,)
    x_valid: Tensor
    y_valid: Tensor

    def train_loss(self, w: Tensor, at: Tensor) -> Tensor:
        return (self.x @ w - self.y).square().mean() + at.exp() * w.square().sum()

    def valid_loss(self, w: Tensor) -> Tensor:
        return (self.x_valid @ w - self.y_valid).square().mean()

    def best_response(self, at: Tensor) -> Tensor:
        """w*(λ), ``(P,)``, by solving; differentiable in λ."""
        n, size = self.x.shape
        gram = self.x.T @ self.x / n + at.exp() * torch.eye(size, dtype=self.x.dtype)
        return torch.linalg.solve(gram, self.x.T @ self.y / n)


@cache
def diabetes(seed: int) -> Ridge:
    """60 rows to learn from, 180 to validate; other ones for every seed."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.RandomState(seed).permutation(len(x))
    rows = torch.from_numpy(((x - x.mean(0)) / x.std(0))[order])
    targets = torch.from_numpy((y - y.mean())[order])
    train, valid = slice(N_TRAIN), slice(N_TRAIN, N_TRAIN + N_VALID)
    return Ridge(rows[train], targets[train], rows[valid], targets[valid])


# --- gating


@dataclass(frozen=True)
class GatedNet:
    """The best response of the two-layer net in closed form.

    Attributes:
        hidden: ``(P, P)`` Q₀.
        output: ``(P,)`` s₀.
        offsets: ``(P,)`` c.
    """

    hidden: Tensor
    output: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, problem: Ridge) -> "GatedNet":
        n = len(problem.x)
        variances, components = torch.linalg.eigh(problem.x.T @ problem.x / n)
        output = components.T @ (problem.x.T @ problem.y / n) / variances
        return cls(components.T, output, variances.log())

    def gates(self, at: Tensor) -> Tensor:
        """σ(c - λ), ``(P,)``."""
        return (self.offsets - at).sigmoid()

    def best_response(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """s*(λ) and Q*(λ)."""
        return self.output, self.gates(at)[:, None] * self.hidden


def net_loss(problem: Ridge, s: Tensor, q: Tensor, at: Tensor) -> Tensor:
    """The net's training loss, by its layers."""
    y = (problem.x @ q.T) @ s
    jacobian = q.T @ s  # of ŷ in x, the same for all x
    return (y - problem.y).square().mean() + at.exp() * jacobian.square().sum()


@dataclass(frozen=True)
class Gating:
    """How far the closed form is from what it should be, the worst over some λ.

    Attributes:
        weights: Of Q*ᵀ s* against w*(λ) by solving, relative.
        loss: Of the net's training loss against the least there is, relative.
        gradient: The largest slope of the net's training loss in s or Q, against that at zero λ.
    """

    weights: float
    loss: float
    gradient: float


def gating(problem: Ridge, lambdas: Sequence[float] | np.ndarray) -> Gating:
    """The first theorem."""
    net, rows = GatedNet.of(problem), []
    slope = problem.x.T @ problem.y / len(problem.x)  # half the gradient of ridge at w = 0
    for value in lambdas:
        at = torch.tensor(value, dtype=torch.float64)
        s, q = net.best_response(at)
        w = problem.best_response(at)
        least = problem.train_loss(w, at)
        slopes = grad(lambda s, q, at=at: net_loss(problem, s, q, at), argnums=(0, 1))(s, q)
        steepest = max(float(one.norm()) for one in slopes)
        rows.append(
            (
                relative(q.T @ s, w),
                abs(float(net_loss(problem, s, q, at) / least - 1)),
                steepest / float(slope.norm()),
            )
        )
    return Gating(*np.max(rows, axis=0))


# --- Jacobian


def expected(loss: Loss, scale: float) -> Loss:
    """E L_T(w + J ε, CENTRE + ε) of w and J, ``(P,)`` each, with ε ~ N(0, scale²): quadratic."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(NODES)
    epsilon, weights = scale * torch.from_numpy(nodes), torch.from_numpy(mass / mass.sum())

    def mean(w: Tensor, slope: Tensor) -> Tensor:
        losses = torch.stack([loss(w + one * slope, CENTRE + one) for one in epsilon])
        return weights @ losses

    return mean


def best_affine(loss: Loss, size: int, scale: float) -> tuple[Tensor, Tensor]:
    """w and J, ``(size,)`` each, that have the least expected loss."""
    mean = expected(loss, scale)
    w, slope = least(lambda both: mean(*both.view(2, size)), 2 * size).view(2, size)
    return w, slope


def best_slope(loss: Loss, w: Tensor, scale: float) -> Tensor:
    """J ``(P,)`` that has the least expected loss where w is given."""
    mean = expected(loss, scale)
    return least(lambda slope: mean(w, slope), len(w))


def least(function: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """Where a quadratic function of ``(size,)`` is least: one Newton step is exact."""
    zero = torch.zeros(size, dtype=torch.float64)
    return torch.linalg.solve(jacrev(grad(function))(zero), -grad(function)(zero))


def quadratic(problem: Ridge) -> Loss:
    """Ridge's training loss to second order around the best response at CENTRE."""
    centre = torch.tensor(CENTRE, dtype=torch.float64)
    w = problem.best_response(centre)
    at = torch.cat([w, centre[None]])

    def loss(both: Tensor) -> Tensor:
        return problem.train_loss(both[:-1], both[-1])

    slope, curvature = grad(loss)(at), jacrev(grad(loss))(at)

    def to_second_order(w: Tensor, at_: Tensor) -> Tensor:
        away = torch.cat([w, at_[None]]) - at
        return slope @ away + 0.5 * away @ curvature @ away

    return to_second_order


@dataclass(frozen=True)
class Bias:
    """Relative errors of the best affine response under a spread, against the best response.

    Attributes:
        quadratic: Of the Jacobian, with the quadratic loss: the theorem says 0.
        weights: Of w at the centre, with ridge; and so all others.
        jacobian: Of the Jacobian.
        hypergradient: Of dL_V/dλ by w and J, with its sign.
        centred: The same as Delta-STN has it: by w*(λ̂) itself, and the best J around it.
    """

    quadratic: float
    weights: float
    jacobian: float
    hypergradient: float
    centred: float


def bias(problem: Ridge, scale: float) -> Bias:
    """The second theorem, and what it is worth where it does not hold."""
    centre = torch.tensor(CENTRE, dtype=torch.float64)
    size = problem.x.shape[1]
    exact, slope = problem.best_response(centre), jacrev(problem.best_response)(centre)
    w, found = best_affine(problem.train_loss, size, scale)
    responses = (w, found), (exact, best_slope(problem.train_loss, exact, scale))
    truth = grad(problem.valid_loss)(exact) @ slope
    hypergradients = [grad(problem.valid_loss)(at) @ one for at, one in responses]
    return Bias(
        relative(best_affine(quadratic(problem), size, scale)[1], slope),
        relative(w, exact),
        relative(found, slope),
        *(float(one / truth - 1) for one in hypergradients),
    )


def relative(got: Tensor, exact: Tensor) -> float:
    """Distance, against the length of what is exact."""
    return float((got - exact).norm() / exact.norm())


# --- printed and drawn


def theorems(seeds: int) -> str:
    """Both theorems."""
    print(f"Gating: Q* = diag(σ(c - λ)) Q₀ against solving, worst of {len(LAMBDAS)} λ in [-6, 6]")
    print("\nseed   weights      loss    gradient   (errors, relative)")
    for seed in range(seeds):
        one = gating(diabetes(seed), LAMBDAS)
        print(f"{seed:4} {one.weights:9.0e} {one.loss:9.0e} {one.gradient:11.0e}")
    print(f"\nJacobian: the best affine response under N(λ̂, σ²) at λ̂ = {CENTRE:g}, errors in %")
    print(
        "'quadratic': in (w, λ) together, as the theorem asks; the rest is ridge, where e^λ bends"
    )
    print("\nseed     σ   quadratic: J   centre        J   dL_V/dλ   dL_V/dλ at the exact centre")
    found = {seed: [bias(diabetes(seed), scale) for scale in SCALES] for seed in range(seeds)}
    for seed, rows in found.items():
        for scale, row in zip(SCALES, rows, strict=True):
            print(
                f"{seed:4} {scale:5} {100 * row.quadratic:14.0e} {100 * row.weights:8.2f}", end=""
            )
            print(f" {100 * row.jacobian:8.1f} {100 * row.hypergradient:+9.1f}", end="")
            print(f" {100 * row.centred:+11.1f}")
    return plot(diabetes(0), found[0])


def plot(problem: Ridge, rows: Sequence[Bias]) -> str:
    """Gates over λ, by solving and in closed form; errors over the spread."""
    net = GatedNet.of(problem)
    solved = [net.hidden @ problem.best_response(torch.tensor(at)) / net.output for at in LAMBDAS]
    closed = [net.gates(torch.tensor(at)) for at in LAMBDAS]

    def draw(grid: np.ndarray) -> None:
        gates, errors = grid[0]
        gates.plot(LAMBDAS, torch.stack(closed), color="#d81b60", linewidth=1)
        gates.plot(LAMBDAS, torch.stack(solved), ".", color="#3c4043", markersize=3)
        gates.set(xlabel="λ", ylabel="gate of each hidden unit", title="σ(c - λ); dots: solved")
        for name, tint in (("jacobian", "#d81b60"), ("weights", "#1f6fd6")):
            errors.loglog(SCALES, [vars(row)[name] for row in rows], "o-", color=tint, label=name)
        exact = [row.quadratic for row in rows]
        errors.loglog(SCALES, exact, "o-", color="#8a8f98", label="jacobian, quadratic loss")
        errors.set(xlabel="σ", ylabel="relative error", title="Best affine response")
        errors.legend()

    return figures.svg(draw, (8.4, 3.6), columns=2)
