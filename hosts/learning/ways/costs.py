"""What a query costs: floating-point operations, counted, and milliseconds, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hosts.learning.base import Task

Run = Callable[[torch.Tensor], torch.Tensor]
_WARM_UP = 3


def count_flops(run: Run, inputs: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return (operations, output) of one run: two for each product that is added; look-ups and norms count nothing."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        found = run(inputs)
    return int(counter.get_total_flops()), found


def flops_per_query(task: Task, model: nn.Module) -> int:
    """Count what one query of a task takes."""
    model.eval()
    return count_flops(model, blank(task))[0]


def ms_per_query(task: Task, model: nn.Module, repeats: int = 30) -> float:
    """Measure what one query takes here, alone, on one thread: the median of some."""
    torch.set_num_threads(1)
    model.eval()
    inputs, taken_ms = blank(task), []
    with torch.inference_mode():
        for _ in range(_WARM_UP + repeats):
            started = time.perf_counter()
            model(inputs)
            taken_ms.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken_ms[_WARM_UP:])


def blank(task: Task) -> torch.Tensor:
    """Return a query of zeros, (1, width): every task takes it."""
    return torch.zeros(1, task.width, dtype=task.input_type)
