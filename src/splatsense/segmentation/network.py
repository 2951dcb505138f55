"""`Segmenter`: a SpUNet backbone with a linear layer for classes and, for instances, PointGroup's offset branch.

- Semantic segmentation is one Linear(out_channels -> classes), as the released configs have it (arXiv 2508.02172, section 4).
- The offset branch predicts from each voxel the way to the centroid of its instance, in metres (arXiv 2004.01658, section 3.2).

- A linear probe standardises what it reads (a normalisation without weights before the linear layer, as MAE's probe, arXiv
  2111.06377): otherwise the scale of the features decides what a learning rate can do with them, and untrained ones, which are
  a hundred times smaller, look worse than they are.

Differs from the released linear probe: a frozen backbone normalises by its running statistics. Pointcept freezes its
weights and lets the statistics follow the batches, so that what is probed changes.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from splatsense.gaussian_cross.unet import SpUNet, UNetConfig
from splatsense.segmentation.lovasz import lovasz_softmax
from splatsense.sparse import SparseTensor
from splatsense.training.batch_norm import BatchNorm1d

NONE = -1


@dataclass(frozen=True, eq=False)
class Output:
    """What the network says of each voxel.

    Attributes:
        features: of the backbone.
        logits: of the classes.
        offsets: metres to the centroid of its instance; None without that branch.
    """

    features: Float[Tensor, "m f"]
    logits: Float[Tensor, "m c"]
    offsets: Float[Tensor, "m 3"] | None


class ProbeHead(nn.Module):
    """A linear layer on standardised features.

    Args:
        width: of the features.
        classes: how many.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = BatchNorm1d(width, eps=1e-6, momentum=None, affine=False)  # statistics of all batches so far
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Float[Tensor, "m f"]) -> Float[Tensor, "m c"]:
        """Logits of voxels."""
        return self.linear(self.norm(features))

    def folded(self) -> nn.Linear:
        """The linear layer that does the same in evaluation."""
        mean, variance = self.norm.get_buffer("running_mean"), self.norm.get_buffer("running_var")
        plain = nn.Linear(self.linear.in_features, self.linear.out_features, device=mean.device)
        with torch.no_grad():
            plain.weight.copy_(self.linear.weight * (variance + self.norm.eps).rsqrt())
            plain.bias.copy_(self.linear.bias - plain.weight @ mean)
        return plain


class Segmenter(nn.Module):
    """Backbone and heads.

    Args:
        config: of the backbone.
        classes: how many.
        instances: whether there is an offset branch.
    """

    def __init__(self, config: UNetConfig, classes: int, instances: bool = False):
        super().__init__()
        self.backbone = SpUNet(config)
        width = self.backbone.out_channels
        self.classes: nn.Linear | ProbeHead = nn.Linear(width, classes)
        self.offsets = None
        if instances:
            norm = BatchNorm1d(width, eps=1e-3, momentum=0.01)
            self.offsets = nn.Sequential(nn.Linear(width, width), norm, nn.ReLU(), nn.Linear(width, 3))
        self.frozen = False

    def freeze_backbone(self) -> None:
        """Keep the backbone as it is from now on, its normalisation included, and standardise what the head reads."""
        self.frozen = True
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        if isinstance(self.classes, nn.Linear):
            self.classes = ProbeHead(self.classes.in_features, self.classes.out_features)

    def plain(self) -> "Segmenter":
        """For use: a network with a plain linear layer. It shares all modules but that."""
        if not isinstance(self.classes, ProbeHead):
            return self
        network = copy.copy(self)
        network._modules = dict(self._modules) | {"classes": self.classes.folded()}
        return network

    def train(self, mode: bool = True) -> "Segmenter":
        """As `nn.Module.train`; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, voxels: SparseTensor) -> Output:
        """Features, logits and offsets of the voxels, in their order."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(voxels)
        return Output(features, self.classes(features), None if self.offsets is None else self.offsets(features))


def semantic_loss(logits: Float[Tensor, "m c"], semantic: Int64[Tensor, " m"], lovasz: float) -> dict[str, Tensor]:
    """Cross-entropy, the Lovasz loss, and "loss", their weighted sum; 0 where no voxel has a class."""
    logits = logits.float()
    has_classes = bool((semantic != NONE).any())
    parts = {"cross_entropy": cross_entropy(logits, semantic, ignore_index=NONE) if has_classes else logits.sum() * 0}
    if lovasz:
        parts["lovasz"] = lovasz_softmax(logits, semantic, NONE)
    return {"loss": parts["cross_entropy"] + lovasz * parts.get("lovasz", 0), **parts}


def offset_loss(predicted: Float[Tensor, "m 3"], truth: Float[Tensor, "m 3"], counted: Bool[Tensor, " m"]) -> dict[str, Tensor]:
    """Mean over voxels of instances of the l1 distance, and of minus the cosine between the directions (equations 2 and 3)."""
    predicted, weight = predicted.float(), counted.float()
    total = weight.sum().clamp_min(1)
    distance = (predicted - truth).abs().sum(1)
    cosine = (normalize(predicted, dim=1) * normalize(truth, dim=1)).sum(1)
    return {"offset_l1": (distance * weight).sum() / total, "offset_direction": -(cosine * weight).sum() / total}


def segmentation_loss(
    output: Output, semantic: Int64[Tensor, " m"], offsets: Float[Tensor, "m 3"], counted: Bool[Tensor, " m"], lovasz: float
) -> dict[str, Tensor]:
    """All losses of a batch, "loss" first; PointGroup's is cross-entropy and both offset losses, each with weight 1.

    Args:
        output: of the network.
        semantic: class of each voxel, -1 for none.
        offsets: metres to the centroid of its instance.
        counted: whether it is of an instance.
        lovasz: weight of the Lovasz loss.
    """
    losses = semantic_loss(output.logits, semantic, lovasz)
    if output.offsets is None:
        return losses
    parts = offset_loss(output.offsets, offsets, counted)
    return losses | parts | {"loss": losses["loss"] + parts["offset_l1"] + parts["offset_direction"]}
