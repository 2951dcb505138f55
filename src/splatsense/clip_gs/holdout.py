"""Evaluation during CLIP-GS pre-training, on training objects that were left out. Never on a test split."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.captions import clean_name
from splatsense.clip_gs.dataset import TripletSet
from splatsense.clip_gs.encoder import GaussianEncoder
from splatsense.clip_gs.prompts import SHORT, class_embeddings
from splatsense.clip_gs.retrieval import recall
from splatsense.clip_gs.zero_shot import zero_shot
from splatsense.teachers import Teacher

BATCH = 32


class HoldoutEvaluation:
    """Zero-shot classification and retrieval of held-out objects by the encoder as it is when called.

    Embeddings are centred as the saved model's are, but by the means of the held-out objects.

    Args:
        data: the held-out objects.
        teacher: that is trained against.
        encoder: in evaluation mode.
        centering: fraction of the means that is subtracted.
    """

    def __init__(self, data: TripletSet, teacher: Teacher, encoder: GaussianEncoder, centering: float) -> None:
        self._data, self._encoder, self._centering = data, encoder, centering
        self._labelled = [row for row, info in enumerate(data.infos) if info["label"]]
        self._labels = [data.infos[row]["label"] for row in self._labelled]
        self._classes = sorted(set(self._labels))
        self._class_embeddings = None
        if len(self._classes) > 1:
            self._class_embeddings = class_embeddings(teacher.encode_text, self._classes, SHORT)
        self._captions = data.mean_captions()

    def __call__(self) -> dict[str, float]:
        """Fractions in [0, 1]: "holdout_text_r1", and "holdout_top1" and "holdout_class_mean" if there are several labels."""
        objects = self._embed()
        objects = normalize(objects - self._centering * objects.mean(0), dim=-1)
        text_center = self._centering * self._captions.mean(0)
        names = [clean_name(info["name"]) for info in self._data.infos]
        found = {"holdout_text_r1": recall(normalize(self._captions - text_center, dim=-1) @ objects.T, names).recall[1]}
        if self._class_embeddings is not None:
            classes = normalize(self._class_embeddings - text_center, dim=-1)
            result = zero_shot(objects[self._labelled], classes, self._labels, self._classes)
            found |= {"holdout_top1": result.top1, "holdout_class_mean": result.class_mean}
        return found

    def _embed(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        device = next(self._encoder.parameters()).device
        parts = []
        with torch.inference_mode():
            for rows in torch.arange(len(self._data)).split(BATCH):
                batch = self._data.batch(rows, self._encoder.config.gaussians, 1, generator)
                parts.append(self._encoder(batch.gaussians.to(device)).cpu())
        return torch.cat(parts)
