"""Randomness as a function of a seed and of counters, beside the global generators of torch.

Nothing is drawn from a stream that has to be remembered: what step 17 draws follows from the seed
and from 17. So a run that is resumed goes on as if it had not been interrupted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import torch


_LOCK = threading.RLock()


def derive(seed: int, *key: int) -> int:
    """A seed of 32 bits for what ``key`` names; other keys as long get unrelated ones."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1)[0])


def generator(seed: int, *key: int) -> torch.Generator:
    """A fresh generator, on the CPU, for what ``key`` names."""
    return torch.Generator("cpu").manual_seed(derive(seed, *key))


@contextlib.contextmanager
def private_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Context in which torch's global generators start at ``seed``; they are restored after it.

    User code (dropout, a shuffling loader) draws from the global generators. Inside this context
    that is repeatable, and nobody outside sees it. One thread at a time: trials of a study with
    several jobs take turns.
    """
    with _LOCK:
        before = torch.get_rng_state()
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        try:
            torch.default_generator.manual_seed(seed)
            if on_device is not None:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(before)
            if on_device is not None:
                torch.cuda.set_rng_state(on_device, device)
