"""The network of GaussianCross pre-training (arXiv 2508.02172, figure 2): mask, encode, decode Gaussians, render, compare.

`forward` takes a batch and gives the losses. Of what is trained only the backbone is kept; the rest exists to train it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from splatsense.gaussian_cross.collapse import effective_rank, feature_spread
from splatsense.gaussian_cross.dataset import INPUT_CHANNELS, TrainingBatch
from splatsense.gaussian_cross.decoder import Decoded, DecoderConfig, GaussianDecoder
from splatsense.gaussian_cross.distillation import (
    LossWeights,
    ProjectionHead,
    color_loss,
    depth_loss,
    render_views,
    semantic_loss,
)
from splatsense.gaussian_cross.masking import MaskToken
from splatsense.gaussian_cross.unet import SpUNet, UNetConfig
from splatsense.render import Rendering
from splatsense.sparse import SparseTensor

WATCHED = 4096  # voxels of a scene whose features are watched for a collapse


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network makes of a batch.

    Attributes:
        backbone: (m, c) the backbone's features F_s.
        decoded: Gaussians of each scene.
        rendering: of all views, scene after scene.
        features: (V, h, w, d) lifted features at the teacher's locations, or None without a teacher.
    """

    backbone: Float[Tensor, "m c"]
    decoded: list[Decoded]
    rendering: Rendering
    features: Float[Tensor, "v h2 w2 d"] | None


class GaussianCross(nn.Module):
    """Backbone, mask token, decoder, projection head and background.

    Args:
        backbone: shape of the sparse U-Net.
        decoder: shape of what turns its features into Gaussians.
        weights: of the losses.
        teacher_center: (d,) subtracted from the teacher's features: non-negative features have a large mean, to which every
            pixel is close, and which would leave little of the cosine to learn. None without a teacher.
    """

    teacher_center: Tensor

    def __init__(
        self, backbone: UNetConfig, decoder: DecoderConfig, weights: LossWeights, teacher_center: Tensor | None
    ) -> None:
        super().__init__()
        self.weights = weights
        self.mask_token = MaskToken(INPUT_CHANNELS)
        self.backbone = SpUNet(backbone)
        self.decoder = GaussianDecoder(self.backbone.out_channels, decoder)
        self.background = nn.Parameter(torch.zeros(3))
        self.projection: ProjectionHead | None = None
        if teacher_center is not None:
            self.projection = ProjectionHead(decoder.feature_channels, len(teacher_center))
            self.register_buffer("teacher_center", teacher_center)

    def predict(self, batch: TrainingBatch) -> Prediction:
        """Everything up to the losses."""
        features = self.mask_token(batch.features, batch.hidden)
        backbone = self.backbone(SparseTensor(batch.coordinates, features))
        scene = batch.coordinates[:, 0].long()
        decoded = self.decoder(backbone, batch.positions, scene, len(batch.views))
        rendering = render_views(decoded, batch.scene_cameras(), self.background.sigmoid())
        lifted = None
        if self.projection is not None and batch.targets.features is not None:
            height, width = batch.targets.features.shape[1:3]
            lifted = self.projection(rendering.features, (height, width))
        return Prediction(backbone, decoded, rendering, lifted)

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Losses, "loss" their weighted sum; and without gradient, what tells a collapse and how many Gaussians there were."""
        prediction = self.predict(batch)
        return self.losses(batch, prediction) | _watch(batch, prediction)

    def losses(self, batch: TrainingBatch, prediction: Prediction) -> dict[str, Tensor]:
        """Losses of a prediction; see `forward`."""
        weights, targets, rendering = self.weights, batch.targets, prediction.rendering
        losses = {
            "color": color_loss(rendering.color, targets.color),
            "depth": depth_loss(rendering.depth * rendering.alpha, targets.depth),
        }
        if prediction.features is not None:
            assert targets.features is not None
            losses["semantic"] = semantic_loss(prediction.features, targets.features - self.teacher_center)
        total = torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()
        return {"loss": total} | losses


def _watch(batch: TrainingBatch, prediction: Prediction) -> dict[str, Tensor]:
    """Means over the scenes of what tells a collapse, and of how many Gaussians there are."""
    rows = []
    for scene, one in enumerate(prediction.decoded):
        some = prediction.backbone.detach()[batch.coordinates[:, 0] == scene][:WATCHED]
        rows.append([feature_spread(some), effective_rank(some), float(len(one.gaussians))])
    means = torch.tensor(rows, device=batch.features.device).mean(0)
    return dict(zip(("feature_std", "effective_rank", "gaussians_kept"), means, strict=True))
