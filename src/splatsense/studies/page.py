"""A study in a page of Markdown: a block stands between `<!-- study:NAME -->` and `<!-- /study:NAME -->`, and is replaced."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from splatsense.errors import DataError
from splatsense.files import atomic_write

MINUS, DASH = "−", "–"


def check_page(page: Path, names: Iterable[str]) -> None:
    """Raise DataError when a page is missing, or lacks the markers of one of these blocks."""
    _replaced(page, dict.fromkeys(names, ""))


def write_into(page: Path, made: Mapping[str, str]) -> None:
    """Replace what stands between the markers of a page. Raises DataError as `check_page` does."""
    text = _replaced(page, made)
    with atomic_write(page) as temporary:
        Path(temporary).write_text(text, "utf-8")


def _replaced(page: Path, made: Mapping[str, str]) -> str:
    if not page.is_file():
        raise DataError(f"--write {page}: there is no such page.")
    try:
        text = page.read_text("utf-8")
    except ValueError as error:
        raise DataError(f"--write {page}: is no text in UTF-8 ({error}).") from error
    for name, content in made.items():
        first, last = f"<!-- study:{name} -->", f"<!-- /study:{name} -->"
        before, found, rest = text.partition(first)
        _, closed, after = rest.partition(last)
        if not found or not closed:
            raise DataError(f"--write {page}: lacks {first} and {last}, between which the study writes.")
        text = f"{before}{first}\n{content}\n{last}{after}"
    return text


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first row is its head."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def spread(values: Mapping[int, float], is_one: bool = False) -> str:
    """Percent, as mean and standard deviation over the seeds; the mean alone of one seed, or of what has no seeds."""
    if not values:
        return DASH
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.1f}" + ("" if deviation is None or is_one else f" ± {100 * deviation:.1f}")


def points(value: float) -> str:
    """A difference in percent points, with its sign."""
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", MINUS)


def mean_and_deviation(values: Mapping[int, float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation (n - 1) of two or more values."""
    numbers = list(values.values())
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None


def joined(values: set[str]) -> str:
    """Texts in order; a dash for none."""
    return "; ".join(sorted(values)) or DASH
