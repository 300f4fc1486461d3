"""Data sets that come with scikit-learn, so that a fresh machine needs no download."""

from __future__ import annotations

import numpy as np

from hosts.learning.data.encode import Table
from hosts.learning.errors import LearningError

_FULL = 16.0


def digits() -> Table:
    """Return the 1,797 handwritten digits: 64 pixels scaled to 0..1, ten classes ``digit 0`` to ``digit 9``."""
    try:
        from sklearn.datasets import load_digits  # seconds: only when asked for
    except ImportError:
        raise LearningError("task digits needs scikit-learn, which `make setup` installs") from None
    found = load_digits()
    names = [f"digit {digit}" for digit in range(10)]
    pixels = (found.data / _FULL).astype(np.float32)
    columns = [f"pixel {row},{column}" for row in range(8) for column in range(8)]
    return Table(pixels, found.target.astype(np.int64), np.zeros(len(pixels), dtype=np.int64), names, columns)
