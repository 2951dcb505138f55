"""Figures that have a target: one line each, the same from every benchmark."""


def judged(what: str, value: float, unit: str, limit: float, at_least: bool = False) -> str:
    """A measured figure beside what is wanted of it.

    Args:
        what: is measured, with what has to be known to compare it.
        value: in `unit`; a whole number when it is a count.
        limit: the most it may be, or with `at_least` the least.
    """
    met = value >= limit if at_least else value <= limit
    wanted = f"{'at least' if at_least else 'at most'} {limit:g} {unit}".rstrip()
    decimals = 0 if isinstance(value, int) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{what:<64} {value:>9,.{decimals}f} {unit:<10} wanted {wanted:<22} {'met' if met else 'MISSED'}"
