"""What the evaluations measure on: test objects of a corpus, embedded by the model and by the render baseline.

The baseline is the teacher alone: mean of its embeddings of the rendered views, normalised. It sees pictures, the
model sees only Gaussians.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.model import ClipGS
from splatsense.clip_gs.triplets import TripletConfig, make_triplet
from splatsense.corpora import CorpusObject
from splatsense.errors import DataError, SplatSenseError
from splatsense.training.progress import Progress

VIEWS = 12
BATCH = 16


@dataclass(frozen=True)
class EvaluationSet:
    """Test objects and their embeddings.

    Attributes:
        objects: the N that could be used.
        model: (N, d) embeddings of their Gaussians.
        rendered: (N, d) embeddings of their rendered views by the teacher alone.
        failed: reason by key of the objects that could not be used.
    """

    objects: tuple[CorpusObject, ...]
    model: Tensor
    rendered: Tensor
    failed: dict[str, str]


def embed_objects(model: ClipGS, objects: Sequence[CorpusObject], gaussians: int = 8192) -> EvaluationSet:
    """Convert, picture and embed objects. Raises DataError when none of them can be used."""
    config = TripletConfig(method="surface", gaussians=gaussians, views=VIEWS, elevations=(10.0, 30.0), jitter=0)
    used: list[CorpusObject] = []
    failed: dict[str, str] = {}
    embedded: list[Tensor] = []
    rendered: list[Tensor] = []
    progress = Progress("test objects", len(objects))
    for start in range(0, len(objects), BATCH):
        triplets = []
        for item in objects[start : start + BATCH]:
            try:
                triplets.append(make_triplet(item, config))
                used.append(item)
            except SplatSenseError as error:
                failed[item.key] = str(error)
        if triplets:
            embedded.append(model.encode_gaussians([triplet.gaussians for triplet in triplets]))
            pictures = [Image.fromarray(view) for triplet in triplets for view in triplet.views]
            views = model.encode_images(pictures).unflatten(0, (len(triplets), VIEWS))
            rendered.append(normalize(views.mean(1), dim=-1))
        progress.advance(len(objects[start : start + BATCH]))
    progress.close()
    if not used:
        raise DataError("none of the test objects can be used; first reason: " + next(iter(failed.values()), "there are none"))
    return EvaluationSet(tuple(used), torch.cat(embedded), torch.cat(rendered), failed)
