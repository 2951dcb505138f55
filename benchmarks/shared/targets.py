"""Figures that have a target: one line each, the same from every benchmark."""


def judged(what: str, value: float, unit: str, limit: float, at_least: bool = False) -> str:
    """A measured figure beside what is wanted of it.

    Args:
        what: is measured, with what has to be known to compare it.
        value: in `unit`.
        limit: the most it may be, or with `at_least` the least.
    """
    met = value >= limit if at_least else value <= limit
    wanted = f"{'at least' if at_least else 'at most'} {limit:g} {unit}".rstrip()
    return f"{what:<64} {value:>9,.{digits(value)}f} {unit:<10} wanted {wanted:<22} {'met' if met else 'MISSED'}"


def digits(value: float) -> int:
    """Decimals that leave three figures, two at most."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
