"""The study as Markdown tables and as JSON; `studies.page` puts them into a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.clip_gs.study_results import Comparison, Measured
from splatsense.clip_gs.study_rows import ANY_DIM, SET_BY_ROWS, Run
from splatsense.clip_gs.study_runs import SHOT, WAY
from splatsense.model_folder import CONFIG
from splatsense.studies.page import DASH, joined, markdown, mean_and_deviation, points, spread
from splatsense.studies.records import RECORD, read_json

COLUMNS = {
    "top1": "top-1",
    "top3": "top-3",
    "top5": "top-5",
    "class_mean": "class mean",
    "text -> 3D R@1": "text → 3D R@1",
    "text -> 3D R@5": "R@5",
    "3D -> text R@1": "3D → text R@1",
    "3D -> text R@5": "R@5",
    "few_shot": f"{WAY}-way {SHOT}-shot",
    "linear_probe": "linear probe",
}
TABLES, PICTURE = ("setup", "results", "comparisons"), "plot"  # names of the markers
SHOWN_ELSEWHERE = ("triplets", "size", "gaussians", "epochs", "batch_size", "teacher", *SET_BY_ROWS)


def blocks(
    recipe: PretrainConfig,
    seeds: Sequence[int],
    measured: Mapping[str, Measured],
    comparisons: Sequence[Comparison],
    runs: Mapping[str, Run],
) -> dict[str, str]:
    """Tables by the name of their markers: set-up, results and comparisons."""
    made = (setup(recipe, seeds, measured, runs), results(measured), comparison_table(comparisons))
    return dict(zip(TABLES, made, strict=True))


def results(measured: Mapping[str, Measured]) -> str:
    """A row of percentages for each row of the study, and below it what is missing and why."""
    rows = [["%", *COLUMNS.values(), "seeds", "minutes"]]
    notes = []
    for one in measured.values():
        cells = [spread(one.values(metric), one.row.is_teacher) for metric in COLUMNS]
        minutes = f"{mean_and_deviation(one.seconds)[0] / 60:.1f}" if one.seconds else DASH
        rows.append(
            [f"`{one.row.name}` {one.row.title}", *cells, DASH if one.row.is_teacher else str(len(one.figures)), minutes]
        )
        notes += [f"`{one.row.name}`: {one.missing}."] if one.missing else []
    reasons = {why for one in measured.values() for figures in one.figures.values() for why in figures["not_possible"].values()}
    told = [f"{DASH}: {reason.rstrip('.')}." for reason in sorted(reasons)]
    return "\n".join([markdown(rows), *(["", *(f"- {note}" for note in notes + told)] if notes or told else [])])


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Who is ahead of whom by zero-shot top-1, in points."""
    if not comparisons:
        return "No two rows that are to be compared were measured yet."
    rows = [["row", "against", "points of top-1", "by seed", "95 %, test objects", "verdict", "paper", "agrees"]]
    for one in comparisons:
        by_seed = ", ".join(points(value) for value in one.differences.values())
        interval = f"{points(one.interval[0])} to {points(one.interval[1])}"
        mean, deviation = mean_and_deviation(one.differences)
        difference = points(mean) + ("" if deviation is None else f" ± {100 * deviation:.1f}")
        paper = DASH if one.paper is None else points(one.paper)
        rows.append([f"`{one.row}`", f"`{one.against}`", difference, by_seed, interval, one.verdict, paper, one.agrees or DASH])
    return markdown(rows)


def setup(recipe: PretrainConfig, seeds: Sequence[int], measured: Mapping[str, Measured], runs: Mapping[str, Run]) -> str:
    """What all rows have in common, and what they were made with."""
    usual = PretrainConfig(triplets=recipe.triplets, out=recipe.out, name=recipe.model_name).settings()
    figures = [figures for one in measured.values() for figures in one.figures.values()]
    cards = [made for run in runs.values() if (made := [read_json(path) for path in _models(run)])]
    records = [read_json(path) for run in runs.values() if (path := Path(run.config.out) / RECORD).exists()]
    objects = {f"{made[0]['objects']:,}" for made in cards}
    steps = {f"{sum(card['steps'] for card in made):,}" for made in cards}
    tested = {f"{len(one['correct'])} of {one['classes']} classes" for one in figures}
    teachers = {f"{card['teacher']} ({card['teacher_hash'][:12]})" for made in cards for card in made}
    rows = [
        ["", ""],
        ["training objects", f"{joined(objects)} ({', '.join(Path(folder).name for folder in recipe.triplets)})"],
        ["test objects", joined(tested)],
        ["network", f"{recipe.size}, {recipe.encoder(ANY_DIM).gaussians:,} Gaussians an object where a row says nothing else"],
        ["budget of a run", f"{recipe.epochs} passes in batches of {recipe.batch_size}: {joined(steps)} steps"],
        ["seeds", ", ".join(map(str, seeds))],
        ["settings other than the defaults", ", ".join(_changed(recipe.settings(), usual)) or "none"],
        ["teacher", joined(teachers)],
        ["measured", joined({f"{one['date']}, {one['machine']}" for one in figures})],
        ["code", joined({code for record in records for code in record["code"]} | {one["code"] for one in figures})],
    ]
    return markdown(rows)


def as_json(
    recipe: PretrainConfig,
    seeds: Sequence[int],
    measured: Mapping[str, Measured],
    comparisons: Sequence[Comparison],
    runs: Mapping[str, Run],
) -> dict[str, Any]:
    """Every figure, with the settings and the code it comes from."""
    return {
        "recipe": recipe.settings(),
        "seeds": list(seeds),
        "rows": {name: _row_as_json(one) for name, one in measured.items()},
        "comparisons": [{**asdict(one), "verdict": one.verdict, "agrees": one.agrees} for one in comparisons],
        "runs": {
            name: _record(run.config) | ({"stage": _record(run.stage)} if run.stage else {}) for name, run in runs.items()
        },
    }


def _models(run: Run) -> list[Path]:
    """Cards of the models of a finished run: of its point-cloud stage, if it has one, and of its own."""
    cards = [Path(config.out) / "model" / CONFIG for config in (run.stage, run.config) if config]
    return cards if cards[-1].exists() else []


def _record(config: PretrainConfig) -> dict[str, Any]:
    """Folder, settings and code of a run; the folder alone when it was not begun yet."""
    path = Path(config.out) / RECORD
    return {"folder": config.out} | (read_json(path) if path.exists() else {})


def _row_as_json(one: Measured) -> dict[str, Any]:
    metrics = {metric: one.values(metric) for figures in one.figures.values() for metric in figures["metrics"]}
    summary = {name: dict(zip(("mean", "deviation"), mean_and_deviation(v), strict=True)) for name, v in metrics.items()}
    about = {"title": one.row.title, "missing": one.missing, "seconds": dict(one.seconds)}
    return about | {"metrics": summary, "by_seed": {seed: dict(figures) for seed, figures in one.figures.items()}}


def _changed(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """Names and values of the settings, those of the augmentation too, that are not the usual ones."""
    found: list[str] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _changed(value, usual[name])
        elif name not in SHOWN_ELSEWHERE and value != usual[name]:
            found.append(f"`{name}` {' '.join(map(str, value)) if isinstance(value, list) else value}")
    return found
