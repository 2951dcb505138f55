"""The check that every function of `splatsense.geometry` runs on its points."""

from torch import Tensor

from splatsense.errors import DataError

MAX_POINTS = 2**31 - 1


def check_points(points: Tensor, argument: str) -> int:
    """The number of points N of a finite, non-empty (N, 3) or (B, N, 3) tensor.

    Args:
        points: what the caller was given, in the type it computes with: float64 beyond float32 is infinite there.
        argument: names it in the error, as "function: argument".

    Raises:
        DataError: another shape, no points, or values that are not finite.
    """
    if points.ndim not in (2, 3) or points.shape[-1] != 3:
        raise DataError(f"{argument} must have shape (N, 3) or (B, N, 3), got {tuple(points.shape)}.")
    if not 0 < points.shape[-2] <= MAX_POINTS:
        raise DataError(f"{argument} must hold 1 to {MAX_POINTS} points, got {points.shape[-2]}.")
    # A sum is far quicker, and finite only if all its terms are; finite terms may still overflow it.
    if not bool(points.detach().sum().isfinite()) and not bool(points.isfinite().all()):
        row = tuple((~points.isfinite()).any(-1).nonzero()[0].tolist())
        raise DataError(f"{argument}[{', '.join(map(str, row))}] is not finite as {points.dtype}; remove such points first.")
    return points.shape[-2]
