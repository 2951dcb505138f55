"""Every error SplatSense raises on purpose. Catch `SplatSenseError` to catch them all.

A message names the file (or the flag), the place in it, and what to do.
"""


class SplatSenseError(Exception):
    """Base class of all errors raised on purpose by SplatSense."""


class FormatError(SplatSenseError):
    """A file is missing, damaged, or not what its name or header says."""


class LimitError(SplatSenseError):
    """An input is larger than a limit set by the caller or by available memory."""


class DataError(SplatSenseError):
    """Values are well-formed but unusable: NaN, wrong shape, a scale of zero, no faces."""


class CheckpointError(SplatSenseError):
    """Weights or a training checkpoint are missing, damaged, or for another model."""


class LibraryError(SplatSenseError):
    """A library folder cannot be opened, read or written, or does not hold what was asked for."""
