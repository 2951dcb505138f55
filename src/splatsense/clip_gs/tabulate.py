"""The tables of the evaluations as aligned text: models and baselines side by side, chance beside them."""

from collections.abc import Mapping, Sequence

from splatsense.clip_gs.bootstrap import Interval
from splatsense.clip_gs.few_shot import FewShotResult
from splatsense.clip_gs.retrieval import RecallResult
from splatsense.clip_gs.zero_shot import ClassificationResult

MOST_CLASSES = 100  # a longer table of classes is left to --json


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join(lines)


def by_class(results: Mapping[str, ClassificationResult]) -> str:
    """Correct objects of every class, a column for each contender."""
    classes = next(iter(results.values())).by_class
    if len(classes) > MOST_CLASSES:
        return f"({len(classes)} classes: see --json for each)"
    rows = [["class", "objects", *results]]
    for name, (_, count) in classes.items():
        rows.append([name, str(count), *(f"{result.by_class[name][0]:.3g}" for result in results.values())])
    return columns(rows)


def accuracies(results: Mapping[str, ClassificationResult]) -> str:
    """Accuracies over all classes, a row for each contender."""
    rows = [["", "top-1", "95 %", "top-3", "top-5", "class mean", "95 %"]]
    for name, result in results.items():
        top = [_percent(result.top1), _range(result.top1_interval), _percent(result.top3), _percent(result.top5)]
        rows.append([name, *top, _percent(result.class_mean), _range(result.class_mean_interval)])
    return columns(rows)


def recalls(directions: Mapping[str, Mapping[str, RecallResult]]) -> str:
    """R@k, a row for each direction and contender."""
    ks = next(iter(next(iter(directions.values())).values())).recall
    rows = [["", "", *(f"R@{k}" for k in ks), f"95 % of R@{next(iter(ks))}"]]
    for direction, results in directions.items():
        for position, (name, result) in enumerate(results.items()):
            figures = [_percent(value) for value in result.recall.values()]
            rows.append([direction if position == 0 else "", name, *figures, _range(result.interval)])
    width = max(len(row[1]) for row in rows)
    return columns([[row[0], row[1].ljust(width), *row[2:]] for row in rows])


def episodes(settings: Mapping[tuple[int, int], Mapping[str, FewShotResult]]) -> str:
    """Few-shot accuracies, a row for each number of classes and objects and each contender."""
    rows = [["", "", "logistic", "prototype", "chance"]]
    for (way, shot), results in settings.items():
        for position, (name, result) in enumerate(results.items()):
            title = f"{way}-way {shot}-shot" if position == 0 else ""
            rows.append([title, name, _spread(result.logistic), _spread(result.prototype), _percent(1 / way)])
    width = max(len(row[1]) for row in rows)
    return columns([[row[0], row[1].ljust(width), *row[2:]] for row in rows])


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _range(interval: Interval) -> str:
    return f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def _spread(values: tuple[float, float]) -> str:
    return f"{values[0]:.1%} ± {100 * values[1]:.1f}"
