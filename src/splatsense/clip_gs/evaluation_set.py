"""What the evaluations measure on: labelled objects, embedded once by every model and by the frozen teachers.

Design
- Objects come from `evaluation_sources`.
- Every teacher embeds the pictures once and each text once, however many models share it.
- Baselines: the teacher alone, which sees the rendered views and no Gaussians, and the first model's network with the random
  weights it started from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.evaluation_sources import CorpusSource, Keep, Sample, ShardSource
from splatsense.clip_gs.model import ClipGS, encode_batch, load_model
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.teachers import Teacher, load_teacher
from splatsense.teachers.images import ImageLike

RENDERED = "render + teacher"


class RememberedTexts:
    """A teacher that embeds a text once: ensembles of prompts are asked for by every model and every table."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._known: dict[str, Tensor] = {}
        self.name, self.dim, self.hash = teacher.name, teacher.dim, teacher.hash

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of texts, as the teacher gives them."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known |= zip(new, self.teacher.encode_text(new), strict=True)
        return torch.stack([self._known[text] for text in texts]) if texts else torch.zeros(0, self.dim)

    def encode_images(self, images: Sequence[ImageLike] | np.ndarray | Tensor) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of pictures."""
        return self.teacher.encode_images(images)


@dataclass(frozen=True)
class Contender:
    """One row of the tables.

    Attributes:
        name: unique among the rows.
        objects: (N, d) unit-length embeddings.
        encode_text: texts to (n, d) unit-length embeddings of the same space.
        images: (N, V, d) embeddings of the pictures by its teacher.
        kind: a model that was asked for, the first one's network with random weights, or the teacher on rendered views.
        hash: of the model's or teacher's weights.
    """

    name: str
    objects: Float[Tensor, "n d"]
    encode_text: Callable[[Sequence[str]], Tensor]
    images: Float[Tensor, "n v d"]
    kind: Literal["model", "untrained", "render"]
    hash: str


@dataclass(frozen=True)
class EvaluationSet:
    """Objects and their embeddings.

    Attributes:
        samples: the N that could be used.
        contenders: models and baselines, each with N embeddings.
        failed: reason by key of the objects that could not be used.
    """

    samples: tuple[Sample, ...]
    contenders: tuple[Contender, ...]
    failed: dict[str, str]

    def select(self, rows: Sequence[int]) -> "EvaluationSet":
        """Some of the objects."""
        chosen = tuple(
            replace(contender, objects=contender.objects[list(rows)], images=contender.images[list(rows)])
            for contender in self.contenders
        )
        return EvaluationSet(tuple(self.samples[row] for row in rows), chosen, self.failed)


@dataclass(frozen=True)
class Models:
    """Models by the name that tables show, and the teachers they share by name."""

    by_name: dict[str, ClipGS]
    teachers: dict[str, RememberedTexts]


def load_models(names: Sequence[str], teachers: dict[str, RememberedTexts] | None = None) -> Models:
    """Bundled names or model folders.

    Args:
        names: of the models.
        teachers: those that are loaded already, by name; the ones that lack are added.

    Raises:
        CheckpointError: a model cannot be read, or was trained against another teacher of its teacher's name.
        DataError: no model is named, or one twice.
    """
    if not names or len(set(names)) < len(names):
        raise DataError(f"--model: name one or more different models, got {' '.join(names) or 'none'}.")
    models = {name: load_model(name) for name in names}
    loaded = {} if teachers is None else teachers
    for model in models.values():
        known = model.card["teacher"]
        if known not in loaded:
            loaded[known] = RememberedTexts(load_teacher(known))
        model.teacher = model.check_teacher(loaded[known])
    own = [model.name for model in models.values()]
    return Models(
        {m.name if own.count(m.name) == 1 else name: m for name, m in models.items()},
        {m.card["teacher"]: loaded[m.card["teacher"]] for m in models.values()},
    )


def untrained_encoder(model: ClipGS, seed: int) -> Callable[[Sequence[Gaussians]], Tensor]:
    """`encode_gaussians` of a model's network with random weights."""
    from splatsense.clip_gs.encoder import GaussianEncoder

    config = model.encoder.config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = GaussianEncoder(config).eval().requires_grad_(False)
    return lambda objects: encode_batch(encoder, objects)


def embed_objects(
    models: Models,
    source: CorpusSource | ShardSource,
    keep: Keep,
    untrained: bool = True,
    seed: int = 0,
    rendered: bool = True,
) -> EvaluationSet:
    """Embed every wanted object once by every model, baseline and teacher.

    Args:
        models: one or more.
        source: of the objects.
        keep: which objects are wanted.
        untrained: also the first model's network with random weights.
        seed: of those weights.
        rendered: also the teachers on the rendered views.

    Raises:
        DataError: there is no object, or none can be used.
    """
    encoders: dict[str, Callable[[Sequence[Gaussians]], Tensor]] = {n: m.encode_gaussians for n, m in models.by_name.items()}
    rows = dict(models.by_name)
    first_name, first = next(iter(models.by_name.items()))
    if untrained:
        name = f"untrained {first_name}"
        rows[name], encoders[name] = first, untrained_encoder(first, seed)
    samples: list[Sample] = []
    objects: dict[str, list[Tensor]] = {name: [] for name in rows}
    images: dict[str, list[Tensor]] = {name: [] for name in models.teachers}
    splits: set[str] = set()

    def wanted(key: str, split: str) -> bool:
        splits.add(split)
        return keep(key, split)

    for batch in source.batches(wanted):
        samples += batch.samples
        for name, encode in encoders.items():
            objects[name].append(encode(batch.gaussians))
        for name, teacher in models.teachers.items():
            images[name].append(batch.embed_views(teacher.teacher))
    if not samples:
        left = f"none is left; the splits are {', '.join(sorted(splits))}; check --split and --holdout"
        reason = next(iter(source.failed.values()), left)
        raise DataError(f"there is no object to evaluate: {reason}.")
    views = {name: torch.cat(parts) for name, parts in images.items()}
    contenders = []
    for name, model in rows.items():
        kind, joined = "model" if name in models.by_name else "untrained", torch.cat(objects[name])
        contenders.append(Contender(name, joined, model.encode_text, views[model.card["teacher"]], kind, model.hash))
    for name, teacher in models.teachers.items() if rendered else ():
        shown = RENDERED if len(models.teachers) == 1 else f"{RENDERED} {name}"
        mean = normalize(views[name].mean(1), dim=-1)
        contenders.append(Contender(shown, mean, teacher.encode_text, views[name], "render", teacher.hash))
    return EvaluationSet(tuple(samples), tuple(contenders), dict(source.failed))
