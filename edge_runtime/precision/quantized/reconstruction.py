"""Rounds a matrix to levels so that its products with the rows that it meets change least.

The error of a rounded column is fed into the columns that are not rounded yet, as far as the rows'
columns go together: GPTQ (Frantar et al. 2022, arXiv 2210.17323), in the equivalent form of Chee et
al. (2023, arXiv 2307.13304) that inverts nothing. With the rows' second moments H = U D U', U upper
triangular with ones on its diagonal, column k becomes the level nearest to w_k + (W - Q)[:, :k]
U[:k, k], and the squared error of the products is the sum of the columns' own, weighted by D.
"""

from __future__ import annotations

import numpy as np

from edge_runtime.tensors import Array

DAMPINGS = (0.01, 0.1)
"""Shares of the mean second moment that are added to all: the fewer rows there are for the columns,
the more is due. With very much of it, each column is rounded to its nearest level."""

_BLOCK = 32  # Columns whose feedback is computed one by one, not as a product of matrices.


def round_matrix(
    matrix: Array, scale: Array, nearest: Array, fit: Array, held: Array, *, levels: int
) -> Array | None:
    """Rounds the weights of each group of a layer.

    Args:
        matrix: float32 [groups, channels, columns].
        scale: float32 [groups, channels, 1].
        nearest: The nearest levels, of the shape of `matrix`.
        fit: float32 [groups, columns, columns], the second moments of the rows.
        held: The same of other rows, on which the results are judged.
        levels: The largest level.

    Returns:
        int8 levels of the shape of `matrix`; None if none is better than `nearest`.
    """
    best, least = None, _error(matrix - nearest * scale, held)
    # Columns with large moments come first: they are free of the others' errors.
    order = np.argsort(-np.diagonal(fit, axis1=1, axis2=2), axis=1, kind="stable")
    group = np.arange(len(matrix))[:, None, None]
    at = (group, np.arange(matrix.shape[1])[:, None], order[:, None, :])
    for damping in DAMPINGS:
        found = np.empty_like(matrix)
        found[at] = _round(matrix[at], scale, _factor(fit, order, damping), levels)
        error = _error(matrix - found * scale, held)
        if error < least:
            best, least = found, error
    return None if best is None else best.astype(np.int8)


def _error(error: Array, moments: Array) -> float:
    """The mean squared error of all products with rows of these second moments."""
    return float(np.vdot(error @ moments, error))


def _factor(moments: Array, order: Array, damping: float) -> Array:
    """U [groups, columns, columns] of the damped moments with their columns in that order."""
    groups, columns = order.shape
    mean = np.diagonal(moments, axis1=1, axis2=2).mean(axis=1, keepdims=True)
    # H = L D L' with both orders reversed is H = U D U'.
    back = order[:, ::-1]
    damped = moments[np.arange(groups)[:, None, None], back[:, :, None], back[:, None, :]]
    index = np.arange(columns)
    damped[:, index, index] += damping * np.where(mean > 0, mean, 1.0)
    factor = np.linalg.cholesky(damped)
    factor /= np.diagonal(factor, axis1=1, axis2=2)[:, None, :].copy()
    return factor[:, ::-1, ::-1]


def _round(matrix: Array, scale: Array, factor: Array, levels: int) -> Array:
    """The levels of a matrix whose columns are in the factor's order."""
    found, error = np.zeros_like(matrix), np.zeros_like(matrix)
    steps = scale[:, :, 0]
    for start in range(0, matrix.shape[2], _BLOCK):
        stop = min(start + _BLOCK, matrix.shape[2])
        block = slice(start, stop)
        wanted = matrix[:, :, block] + error[:, :, :start] @ factor[:, :start, block]
        inside = np.ascontiguousarray(factor[:, block, block].swapaxes(1, 2))
        wrong = np.zeros_like(wanted)
        for k in range(stop - start):
            # Not a product of matrices, whose threads would cost more than they save.
            wanted[:, :, k] += np.einsum("gck,gk->gc", wrong[:, :, :k], inside[:, k, :k])
            level = np.clip(np.rint(wanted[:, :, k] / steps), -levels, levels)
            found[:, :, start + k] = level
            wrong[:, :, k] = matrix[:, :, start + k] - level * steps
        error[:, :, block] = wrong
    return found
