"""Keeping many agents on one machine small: glibc keeps an arena per thread and gives little back by itself."""

from __future__ import annotations

import contextlib
import ctypes
import gc

_M_ARENA_MAX = -8
_libc = ctypes.CDLL(None)


def use_one_arena() -> None:
    """Let all threads of this process share one malloc arena (call before they start); only glibc has them."""
    with contextlib.suppress(AttributeError):
        _libc.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return freed memory to the system, after a visit; circles first, which Python looks for only once a quarter is
    new, of all that is alive: PyTorch is a lot.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):
        _libc.malloc_trim(0)
