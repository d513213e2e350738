"""Products of a matrix with its transpose, which are symmetric, with five eighths of the multiplications."""

from __future__ import annotations

from itertools import pairwise

import torch

_PARTS = 4
_MIN_ROWS = 400  # with fewer, several products take as long as one (AMD EPYC with AVX2, float32, one thread)


def times_transpose(matrix: torch.Tensor) -> torch.Tensor:
    """X Xᵀ: [m, n] to [m, m].

    On a CPU, 10 of 16 blocks are computed, and the others mirrored. At 480 × 832 in float32 that takes three quarters
    of the time of `X @ X.T` (AMD EPYC with AVX2, one thread).
    """
    rows = len(matrix)
    if matrix.device.type != "cpu" or rows < _MIN_ROWS:
        return matrix @ matrix.T
    result = matrix.new_empty(rows, rows)
    edges = [rows * part // _PARTS for part in range(_PARTS + 1)]
    for start, end in pairwise(edges):
        torch.mm(matrix[start:end], matrix[:end].T, out=result[start:end, :end])
        result[:start, start:end] = result[start:end, :start].T
    return result
