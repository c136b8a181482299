"""One BLAS thread inside a suggestion.

The matrices of a suggestion are small. Two BLAS threads gain nothing on an idle machine, and on a
busy one, where they wait for each other, they make a suggestion ten times slower and more.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any


try:
    import threadpoolctl
except ImportError:  # it comes with scikit-learn; without it the user's setting stands
    threadpoolctl = None


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Context in which numpy and scipy use one thread; the number there was is restored."""
    if threadpoolctl is None:
        return contextlib.nullcontext()
    limit: contextlib.AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _controller() -> Any:
    """The libraries loaded by now; finding them takes longer than limiting them."""
    return threadpoolctl.ThreadpoolController()
