"""Muon's orthogonalisation compared with the usual one: time for one layer, and spread of singular values.

    python benchmarks/muon.py [--json FILE]

The usual one: five Newton-Schulz iterations with the same coefficients, after dividing by the Frobenius norm (Jordan et
al. 2024). Both are timed alternately in one process, in float32, on matrices of the shapes of one layer of SmolLM2's
half. The spread is that of singular values which fall geometrically from 1 to the given smallest one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from prunus.pipeline.machine import hardware, versions
from prunus.training.muon import orthogonal

SHAPES = [(384, 480), (192, 480), (192, 480), (480, 384), (832, 480), (832, 480), (480, 832)]
SMALLEST = (1.0, 0.1, 0.01, 0.001, 0.0001)


def usual(matrix: torch.Tensor, products: torch.dtype) -> torch.Tensor:
    """Five iterations with the coefficients of torch's Muon."""
    wide = matrix.to(products)
    if tall := matrix.shape[0] > matrix.shape[1]:
        wide = wide.T
    wide = wide / wide.norm()
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide.T if tall else wide


METHODS: dict[str, Callable[[torch.Tensor, torch.dtype], torch.Tensor]] = {"usual": usual, "now": orthogonal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    seconds = times(options.rounds)
    print(f"{hardware()}, {options.threads} threads")
    print("".join(f"{name}: {value * 1000:.1f} ms for one layer   " for name, value in seconds.items()))
    spreads = {smallest: spread(smallest) for smallest in SMALLEST}
    print(f"{'smallest':>10}" + "".join(f"{name + ' min, max, error':>26}" for name in METHODS))
    for smallest, row in spreads.items():
        print(f"{smallest:10}" + "".join("{:10.3f}{:8.3f}{:8.3f}".format(*figures) for figures in row.values()))
    if options.json:
        facts = {"hardware": hardware(), "versions": versions(), "threads": options.threads, "shapes": SHAPES}
        facts |= {"seconds": seconds, "spreads": spreads}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


def times(rounds: int) -> dict[str, float]:
    """CPU seconds for the matrices of one layer, the median of the rounds."""
    matrices = [torch.randn(shape) for shape in SHAPES]
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(rounds + 1):  # the first warms up
        for name, method in METHODS.items():
            begin = time.process_time()
            for matrix in matrices:
                method(matrix, torch.float32)
            seconds[name].append(time.process_time() - begin)
    return {name: median(each[1:]) for name, each in seconds.items()}


def spread(smallest: float) -> dict[str, tuple[float, float, float]]:
    """Of each method: the least and the largest singular value, and the mean distance from 1."""
    u, _, v = torch.linalg.svd(torch.randn(192, 320), full_matrices=False)
    matrix = u @ torch.logspace(math.log10(smallest), 0, 192).diag() @ v
    result = {}
    for name, method in METHODS.items():
        values = torch.linalg.svdvals(method(matrix, torch.float32))
        result[name] = (float(values.min()), float(values.max()), float((values - 1).abs().mean()))
    return result


if __name__ == "__main__":
    main()
