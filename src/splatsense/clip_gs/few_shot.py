"""Few-shot classification (CLIP-GS, section 4): a linear classifier on frozen embeddings of a few labelled objects.

Design
- An episode draws `way` classes, `shot` support objects of each, and query objects of the same classes from what is left.
  Episodes depend on labels and the seed alone, so every model is given the same ones.
- Two classifiers: logistic regression, which is the paper's protocol, and the nearest class mean (Snell et al. 2017, arXiv
  1703.05175), which has nothing to tune.
- Reported are mean and standard deviation over episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.logistic_regression import LogisticRegression
from splatsense.clip_gs.ranking import hits_at
from splatsense.errors import DataError

WAYS = (5, 10, 20, 50)


@dataclass(frozen=True)
class FewShotConfig:
    """The episodes."""

    ways: tuple[int, ...] = ()
    """numbers of classes; by default 5, 10, 20 and 50, as far as there are classes"""
    shots: tuple[int, ...] = (1, 5, 10)
    """numbers of labelled objects per class"""
    episodes: int = 10
    """random draws for each number of classes and objects"""
    queries: int = 20
    """objects per class that are classified, at most"""
    support: str = ""
    """split that labelled objects come from; by default the one that is evaluated"""
    C: float = 10.0
    """of the logistic regression: strength of the data against the penalty"""

    def __post_init__(self) -> None:
        for flag, minimum in {"ways": 2, "shots": 1, "episodes": 2, "queries": 1}.items():
            given = getattr(self, flag)
            values = given if isinstance(given, tuple) else (given,)
            if any(value < minimum for value in values):
                raise DataError(f"--{flag}: must be at least {minimum}, got {' '.join(map(str, values))}.")
        if not self.shots or not self.C > 0:
            raise DataError("--shots: name at least one number; --C: must be above zero.")


@dataclass(frozen=True)
class Episode:
    """One draw: rows of the objects, and their classes numbered 0 to way - 1."""

    support: np.ndarray
    support_classes: np.ndarray
    queries: np.ndarray
    query_classes: np.ndarray


@dataclass(frozen=True)
class FewShotResult:
    """Accuracies in [0, 1] over the queries of an episode; mean and standard deviation over episodes."""

    logistic: tuple[float, float]
    prototype: tuple[float, float]


def draw_episodes(
    labels: Sequence[str], splits: Sequence[str], way: int, shot: int, config: FewShotConfig, seed: int = 0
) -> list[Episode]:
    """The episodes of one number of classes and objects.

    Args:
        labels: class of each object; "" is no class.
        splits: split of each object; with `config.support` the support comes from that one and the queries from all others.
        way: classes per episode.
        shot: support objects per class.
        config: numbers of episodes and queries.
        seed: of the draws.

    Raises:
        DataError: fewer classes than `way` have enough objects.
    """
    pools = _class_pools(labels, splits, config.support)
    spare = 0 if config.support else 1  # of one pool, an object must be left to classify
    eligible = [label for label, (support, queries) in pools.items() if len(support) >= shot + spare and len(queries)]
    if len(eligible) < way:
        where = f"objects in split {config.support!r} and one to classify" if config.support else "objects"
        largest = max((len(support) for support, _ in pools.values()), default=0)
        raise DataError(
            f"few-shot: {way}-way {shot}-shot needs {way} classes of {shot + spare} {where} or more; there are "
            f"{len(eligible)}, and the largest class has {largest}. Take fewer --ways or --shots."
        )
    episodes = []
    for index in range(config.episodes):
        random = np.random.default_rng((seed, way, shot, index))
        chosen = random.choice(len(eligible), way, replace=False)
        episodes.append(_draw([pools[eligible[i]] for i in chosen], shot, config, random))
    return episodes


def few_shot(embeddings: Float[Tensor, "n d"], episodes: Sequence[Episode], C: float) -> FewShotResult:
    """Accuracies of both classifiers on the unit-length embeddings of the objects."""
    accuracies = np.array([[_logistic(embeddings, episode, C), _prototype(embeddings, episode)] for episode in episodes])
    mean, deviation = accuracies.mean(0).tolist(), accuracies.std(0, ddof=1).tolist()
    return FewShotResult((mean[0], deviation[0]), (mean[1], deviation[1]))


def _class_pools(labels: Sequence[str], splits: Sequence[str], support: str) -> dict[str, tuple[list[int], list[int]]]:
    """Rows that may be support and rows that may be queries, by class."""
    pools: dict[str, tuple[list[int], list[int]]] = {label: ([], []) for label in sorted(set(labels) - {""})}
    for row, (label, split) in enumerate(zip(labels, splits, strict=True)):
        if label and (not support or split == support):
            pools[label][0].append(row)
        if label and (not support or split != support):
            pools[label][1].append(row)
    return pools


def _draw(pools: list[tuple[list[int], list[int]]], shot: int, config: FewShotConfig, random: np.random.Generator) -> Episode:
    support, queries = [], []
    for candidates, targets in pools:
        taken = random.choice(candidates, shot, replace=False)
        left = np.setdiff1d(targets, taken)
        support.append(taken)
        queries.append(random.choice(left, min(config.queries, len(left)), replace=False))
    sizes = [len(rows) for rows in queries]
    numbers = np.arange(len(pools))
    return Episode(np.concatenate(support), numbers.repeat(shot), np.concatenate(queries), numbers.repeat(sizes))


def _logistic(embeddings: Tensor, episode: Episode, C: float) -> float:
    features = embeddings.double().numpy()
    classifier = LogisticRegression(features[episode.support], episode.support_classes, C)
    return _accuracy(torch.from_numpy(classifier.scores(features[episode.queries])), episode)


def _prototype(embeddings: Tensor, episode: Episode) -> float:
    support = embeddings[torch.from_numpy(episode.support)].unflatten(0, (-1, _shots(episode)))
    prototypes = normalize(support.mean(1), dim=-1)
    return _accuracy(embeddings[torch.from_numpy(episode.queries)] @ prototypes.T, episode)


def _shots(episode: Episode) -> int:
    return int((episode.support_classes == 0).sum())


def _accuracy(scores: Tensor, episode: Episode) -> float:
    truth = torch.from_numpy(episode.query_classes)
    return float(hits_at(scores, truth[:, None] == torch.arange(scores.shape[1]), (1,)).mean())
