"""What is said about regrets: means, ranks, shares, tests and bands.

S  samplers      P  pairs of problem and seed
Q  problems      T  trials
"""

import numpy as np
from scipy import stats


FLOOR = 1e-3  # regrets below count as this much: nobody tunes beyond a thousandth
RESAMPLES = 2000


def log_floored(regret: np.ndarray) -> np.ndarray:
    """Logarithm of the regret after the floor; same shape."""
    return np.log(np.maximum(regret, FLOOR))


def by_problem(values: np.ndarray, problem_of: np.ndarray) -> np.ndarray:  # -> (S, Q, T)
    """Mean over the seeds of each problem; `values` (S, P, T), `problem_of` (P,) in 0..Q-1."""
    problems = range(problem_of.max() + 1)
    return np.stack([values[:, problem_of == q].mean(axis=1) for q in problems], axis=1)


def mean_rank(regret: np.ndarray) -> np.ndarray:  # (S, P, T) -> (S, T)
    """Rank of each sampler within each pair, 1 is best, ties share; mean over pairs."""
    ranks: np.ndarray = stats.rankdata(np.maximum(regret, FLOOR), axis=0)
    return ranks.mean(axis=1)


def share_won(logs: np.ndarray) -> np.ndarray:  # (S, Q, T) -> (S, T)
    """Share of problems on which a sampler has the lowest mean log regret; ties share the win."""
    best = np.isclose(logs, logs.min(axis=0), rtol=0.0, atol=1e-9)
    return (best / best.sum(axis=0)).mean(axis=1)


def wilcoxon_holm(ours: np.ndarray, others: np.ndarray) -> np.ndarray:  # (Q,), (K, Q) -> (K,)
    """Two-sided Wilcoxon signed-rank p of `ours` against each of K others, Holm-corrected.

    One value per problem, its mean log regret over seeds: problems are the independent draws.
    """
    equal = np.isclose(ours, others, rtol=0.0, atol=1e-9)  # dropped: Wilcoxon's own way with zeros
    differences = [(ours - x)[~same] for x, same in zip(others, equal, strict=True)]
    p = np.array([stats.wilcoxon(x).pvalue if len(x) else 1.0 for x in differences])
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def band(logs: np.ndarray) -> np.ndarray:  # (S, Q, T) -> (2, S, T)
    """90 % bootstrap interval of the geometric mean over problems, which are resampled."""
    rng = np.random.default_rng(0)
    problems = logs.shape[1]
    weights = rng.multinomial(problems, np.full(problems, 1 / problems), RESAMPLES) / problems
    means = np.einsum("bq,sqt->bst", weights, logs, optimize=True)
    return np.exp(np.quantile(means, [0.05, 0.95], axis=0))


def regret_at(
    regret: np.ndarray,  # (P, T)
    seconds: np.ndarray,  # (P, T), per suggestion
    cost: float,  # seconds per evaluation
    clock: np.ndarray,  # (G,), seconds since the start
) -> np.ndarray:  # (P, G)
    """Regret of what was evaluated by each time; the last one stays when all trials are done."""
    done = np.cumsum(np.nan_to_num(seconds) + cost, axis=1)
    count = [np.searchsorted(row, clock, side="right") for row in done]
    latest = np.clip(np.array(count) - 1, 0, None)
    return np.take_along_axis(regret, latest, axis=1)
