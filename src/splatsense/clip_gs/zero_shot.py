"""Zero-shot classification (CLIP-GS, section 4; protocol of CLIP, arXiv 2103.00020): objects against class names.

A class embedding is the mean over prompt templates of the normalised text embeddings, normalised again. A class name
such as "shelf / bookcase" lists synonyms; each goes through every template.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.captions import fill_template
from splatsense.errors import DataError

TEMPLATES = (
    "{name}",
    "a photo of {article} {name}",
    "a 3D model of {article} {name}",
    "a rendering of {article} {name}",
    "{article} {name} on a white background",
    "a picture of one {name}",
)


@dataclass(frozen=True)
class ZeroShotResult:
    """Accuracies in [0, 1].

    Attributes:
        top1: fraction of objects whose class comes first.
        top3: ... among the first three.
        top5: ... among the first five.
        class_mean: mean over classes of top1 within the class.
        chance: expected top1 of guessing.
        by_class: (correct, objects) by class name.
    """

    top1: float
    top3: float
    top5: float
    class_mean: float
    chance: float
    by_class: dict[str, tuple[int, int]]


def class_embeddings(encode_text: Callable[[Sequence[str]], Tensor], names: Sequence[str]) -> Tensor:
    """(C, d) unit-length embeddings of class names.

    Args:
        encode_text: maps a list of texts to (n, d) unit-length embeddings, as `ClipGS.encode_text`.
        names: of the classes.
    """
    prompts = [[fill_template(t, synonym.strip()) for synonym in name.split("/") for t in TEMPLATES] for name in names]
    embedded = encode_text([prompt for group in prompts for prompt in group])
    means = [part.mean(0) for part in embedded.split([len(group) for group in prompts])]
    return normalize(torch.stack(means), dim=-1)


def zero_shot(embeddings: Tensor, classes: Tensor, labels: Sequence[str], names: Sequence[str]) -> ZeroShotResult:
    """Classify by the nearest class embedding.

    Args:
        embeddings: (N, d) unit-length, of the objects.
        classes: (C, d) unit-length, of the classes `names`.
        labels: true class of each object.
        names: of the classes.

    Raises:
        DataError: a label is not among the names, or there are no objects.
    """
    unknown = sorted(set(labels) - set(names))
    if unknown or not labels:
        raise DataError(f"zero_shot: no objects, or labels that are not among the classes: {unknown}.")
    truth = torch.tensor([list(names).index(label) for label in labels])
    scores = embeddings @ classes.T
    ranked = scores.argsort(dim=1, descending=True, stable=True)
    place = (ranked == truth[:, None]).int().argmax(1)
    correct = place == 0
    by_class = {
        n: (int(correct[truth == i].sum()), int((truth == i).sum())) for i, n in enumerate(names) if bool((truth == i).any())
    }
    return ZeroShotResult(
        top1=float(correct.double().mean()),
        top3=float((place < 3).double().mean()),
        top5=float((place < 5).double().mean()),
        class_mean=sum(hits / count for hits, count in by_class.values()) / len(by_class),
        chance=1 / len(names),
        by_class=by_class,
    )
