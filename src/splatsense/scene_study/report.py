"""The study of GaussianCross as Markdown tables, JSON and a picture, from the figures on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from splatsense.scene_study.rows import Row, Table
from splatsense.studies.dots import plot_dots
from splatsense.studies.page import DASH, joined, markdown, mean_and_deviation, points, spread

PICTURE = "plot"
Figures = Mapping[int, Mapping[str, Any]]
"""Of a row, by seed."""
COLUMNS = {"mean_iou": "mean IoU", "mean_accuracy": "class accuracy", "overall_accuracy": "points right"}
INSTANCE_COLUMNS = {"ap": "AP", "ap50": "AP50", "ap25": "AP25", "mean_iou": "mean IoU"}
TRANSFER_COLUMNS = {
    "present_iou": "mean IoU, classes that occur", "mean_accuracy": "class accuracy", "overall_accuracy": "points right",
    "ap50": "AP50",
}  # fmt: skip
HEADLINE: dict[Table, str] = {"instances": "ap50"}
PROTOCOLS: dict[Table, str] = {
    "probe": "linear probe",
    "finetune": "fine-tuning",
    "instances": "instances",
    "ablations": "ablations",
}


def blocks(
    rows: Sequence[Row], figures: Mapping[str, Figures], setup: str, transfer: Mapping[str, Figures] | None = None
) -> dict[str, str]:
    """Tables by the name of their markers.

    Args:
        rows: of the study.
        figures: by name of the row.
        setup: what all rows have in common.
        transfer: figures of the same rows on other scenes; None for no such table.
    """
    tables: dict[str, str] = {"setup": setup}
    for name in dict.fromkeys(row.table for row in rows):
        own = [row for row in rows if row.table == name]
        tables[name] = _limited(own, figures) if own[0].limits else _table(own, figures)
    return tables if transfer is None else tables | {"transfer": _transfer(rows, transfer)}


def _table(rows: Sequence[Row], figures: Mapping[str, Figures]) -> str:
    """A line for each model, and how far it is from the first by its main figure, seed by seed."""
    columns = INSTANCE_COLUMNS if rows[0].table == "instances" else COLUMNS
    headline = HEADLINE.get(rows[0].table, "mean_iou")
    lines = [["%", *columns.values(), f"against {rows[0].title}", "seeds", "minutes"]]
    for row in rows:
        found = figures[row.name]
        cells = [spread(values(found, metric)) for metric in columns]
        seconds = values(found, "seconds")
        minutes = f"{mean_and_deviation(seconds)[0] / 60:.1f}" if seconds else DASH
        against = DASH if row is rows[0] else difference(found, figures[rows[0].name], headline)
        lines.append([row.title, *cells, against, str(len(found)), minutes])
    return markdown(lines)


def _limited(rows: Sequence[Row], figures: Mapping[str, Figures]) -> str:
    """A line for each amount of data: from scratch, the linear probe, fine-tuned, and how far the last is from the first."""
    amounts = list(dict.fromkeys(tuple(row.limits.items()) for row in rows))
    titles = list(dict.fromkeys(row.title for row in rows))
    lines = [["mean IoU, %", "scenes", *titles, "difference", "seeds"]]
    for amount in amounts:
        found = {row.title: figures[row.name] for row in rows if tuple(row.limits.items()) == amount}
        scenes = {str(one["scenes"]) for each in found.values() for one in each.values()}
        cells = [spread(values(found[title], "mean_iou")) for title in titles]
        gain = difference(found[titles[-1]], found[titles[0]], "mean_iou")
        lines.append([_amount(*amount[0]), joined(scenes), *cells, gain, str(min(map(len, found.values())))])
    return markdown(lines)


def _transfer(rows: Sequence[Row], figures: Mapping[str, Figures]) -> str:
    """A line for each row that has figures, and how far it is from the first one under the same protocol."""
    lines = [["%", "", *TRANSFER_COLUMNS.values(), "difference in mean IoU", "seeds"]]
    for row in rows:
        found = figures[row.name]
        if not found:
            continue
        first = next(other for other in rows if (other.table, other.limits) == (row.table, row.limits))
        protocol = PROTOCOLS.get(row.table) or _amount(*next(iter(row.limits.items())))
        cells = [spread(values(found, metric)) for metric in TRANSFER_COLUMNS]
        against = DASH if row is first else difference(found, figures[first.name], "present_iou")
        lines.append([protocol, row.title, *cells, against, str(len(found))])
    return markdown(lines)


def _amount(kind: str, number: float) -> str:
    return f"{100 * number:g} % of the scenes" if kind == "scene_share" else f"{number:g} points a scene"


def values(figures: Figures, metric: str) -> dict[int, float]:
    """A figure by seed, where there is one."""
    flat = {seed: {**one["metrics"], "seconds": one["seconds"]} for seed, one in figures.items()}
    return {seed: one[metric] for seed, one in flat.items() if metric in one}


def difference(one: Figures, other: Figures, metric: str) -> str:
    """Percent points that a row is ahead of another, mean and deviation over the seeds that both have."""
    ours, theirs = values(one, metric), values(other, metric)
    found = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    if not found:
        return DASH
    mean, deviation = mean_and_deviation(found)
    return points(mean) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def plot(rows: Sequence[Row], figures: Mapping[str, Figures], path: Path) -> None:
    """Draw mean IoU (of instances AP50) of every run."""
    shown = {}
    for row in rows:
        amount = "".join(f" {value:g}" for value in row.limits.values())
        shown[f"{row.table}{amount}: {row.title}"] = values(figures[row.name], HEADLINE.get(row.table, "mean_iou"))
    plot_dots(shown, path, "mean IoU, of instances AP50")


def as_json(
    rows: Sequence[Row], figures: Mapping[str, Figures], setup: Mapping[str, Any],
    transfer: Mapping[str, Figures] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Every figure, with what it comes from."""
    found = {**setup, "rows": _summaries(rows, figures)}
    return found if transfer is None else found | {"transfer": _summaries(rows, transfer)}


def _summaries(rows: Sequence[Row], figures: Mapping[str, Figures]) -> dict[str, Any]:
    found = {}
    for row in rows:
        metrics = {metric for one in figures[row.name].values() for metric in one["metrics"]}
        summary = {}
        for metric in sorted(metrics):
            mean, deviation = mean_and_deviation(values(figures[row.name], metric))
            summary[metric] = {"mean": mean, "deviation": deviation}
        by_seed = {str(seed): dict(one) for seed, one in figures[row.name].items()}
        found[row.name] = {"title": row.title, "metrics": summary, "by_seed": by_seed}
    return found
