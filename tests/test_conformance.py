"""Optuna's own conformance kit for samplers, with the model used from the second trial on.

The kit asks ``sample_relative`` for spaces that no trial had before, leaves trials running behind
it, and checks every value against its distribution.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase

from optuna_hypernet import HypernetSampler


class _WithoutStartup:
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: HypernetSampler(n_startup_trials=0, seed=0)


class TestBasic(_WithoutStartup, BasicSamplerTestCase):
    pass


class TestRelative(_WithoutStartup, RelativeSamplerTestCase):
    pass


class TestMultiObjective(_WithoutStartup, MultiObjectiveSamplerTestCase):
    pass
