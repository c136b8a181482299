"""One BLAS thread inside a suggestion.

The matrices of a suggestion are small. Two BLAS threads gain nothing on an idle machine, and on a
busy one, where they wait for each other, they make a suggestion ten times slower and more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any


try:
    import threadpoolctl
except ImportError:  # it comes with scikit-learn; without it the user's setting stands
    threadpoolctl = None


_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context in which numpy and scipy use one thread; the number there was is restored.

    The number belongs to the process. So one suggestion at a time may be in this context: of two
    that overlap, the last to leave would restore what the first had set.
    """
    if threadpoolctl is None:
        yield
        return
    with _one_at_a_time, _controller().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _controller() -> Any:
    """The libraries loaded by now; finding them takes longer than limiting them."""
    return threadpoolctl.ThreadpoolController()
