"""`splatsense evaluate`: the commands. Each prints tables of `Evaluation`, beside chance and baselines, and writes figures.

Make choices with `--split train --holdout PREFIX` on objects that a model was not trained on; report on the test split.
"""

import json
from collections.abc import Callable
from pathlib import Path

from splatsense import __version__
from splatsense.clip_gs.evaluation import EvaluateConfig, Evaluation, Table
from splatsense.clip_gs.few_shot import FewShotConfig
from splatsense.clip_gs.linear_probe import LinearProbeConfig
from splatsense.clip_gs.prompts import Prompts
from splatsense.errors import DataError
from splatsense.files import atomic_write

DEFAULT, DEFAULT_EPISODES, DEFAULT_PROBE = EvaluateConfig(), FewShotConfig(), LinearProbeConfig()


def evaluate_zero_shot(config: EvaluateConfig = DEFAULT, prompts: Prompts = "ensemble") -> str:
    """Zero-shot classification of labelled objects by the names of their classes.

    Args:
        config: What to evaluate.
        prompts: Templates that class names go through: the bare name, 6 or 64.
    """
    evaluation = Evaluation(config)
    return _report(evaluation, {"zero_shot": evaluation.zero_shot(prompts)})


def evaluate_retrieval(config: EvaluateConfig = DEFAULT, prompts: Prompts = "short") -> str:
    """Retrieval between texts, pictures and objects.

    Args:
        config: What to evaluate.
        prompts: Templates that names go through: the bare name, 6 or 64.
    """
    evaluation = Evaluation(config)
    return _report(evaluation, {"retrieval": evaluation.retrieval(prompts)})


def evaluate_few_shot(config: EvaluateConfig = DEFAULT, episodes: FewShotConfig = DEFAULT_EPISODES) -> str:
    """Few-shot classification: a linear classifier on the embeddings of a few labelled objects.

    Args:
        config: What to evaluate.
        episodes: How many classes, objects and draws.
    """
    evaluation = Evaluation(config, episodes.support)
    return _report(evaluation, {"few_shot": evaluation.few_shot(episodes)})


def evaluate_linear_probe(config: EvaluateConfig = DEFAULT, probe: LinearProbeConfig = DEFAULT_PROBE) -> str:
    """Linear probe: a classifier fitted to the embeddings of one split, measured on another.

    Args:
        config: What to evaluate.
        probe: The split to fit to, and how.
    """
    evaluation = Evaluation(config, probe.train)
    return _report(evaluation, {"linear_probe": evaluation.linear_probe(probe)})


def evaluate_all(config: EvaluateConfig = DEFAULT) -> str:
    """Zero-shot, retrieval, few-shot and linear probe with their usual settings; every object is embedded once.

    A table that the data do not allow, such as few-shot with two objects a class, gives way to the reason.

    Args:
        config: What to evaluate.
    """
    evaluation = Evaluation(config, DEFAULT_PROBE.train)
    return _report(evaluation, all_tables(evaluation))


def all_tables(evaluation: Evaluation, episodes: FewShotConfig = DEFAULT_EPISODES) -> dict[str, Table]:
    """The four tables of an evaluation of both splits, or the reason ("not_possible") why there cannot be one."""
    made: dict[str, Callable[[], Table]] = {
        "zero_shot": evaluation.zero_shot,
        "retrieval": evaluation.retrieval,
        "few_shot": lambda: evaluation.few_shot(episodes),
        "linear_probe": lambda: evaluation.linear_probe(DEFAULT_PROBE),
    }
    return {name: _possible(name, make) for name, make in made.items()}


def _possible(name: str, make: Callable[[], Table]) -> Table:
    """A table, or why these data do not allow it: too few objects, no labels, no other split."""
    try:
        return make()
    except DataError as error:
        return f"{name.replace('_', ' ')}: not possible: {error}", {"not_possible": str(error)}


def _report(evaluation: Evaluation, tables: dict[str, Table]) -> str:
    """The tables as text; their figures go to the file of `--json`."""
    config = evaluation.config
    if config.json:
        models = {c.name: {"kind": c.kind, "hash": c.hash} for c in evaluation.data.contenders}
        about = {"version": __version__, "data": config.data, "split": config.split, "holdout": config.holdout}
        figures = {name: figures for name, (_, figures) in tables.items()}
        with atomic_write(config.json) as temporary:
            content = {**about, "seed": config.seed, "models": models, **figures, "left_out": evaluation.notes}
            Path(temporary).write_text(json.dumps(content, indent=1))
    blocks = [text for text, _ in tables.values()] + (["\n".join(evaluation.notes)] if evaluation.notes else [])
    return "\n\n\n".join(blocks)
