"""The CLIP-GS objective (arXiv 2412.19142, section 3.3): a text loss and an image loss with voting.

With unit-length embeddings E_G, E_T, E_I and Contra(q_i, K) = log softmax_j(<q_i, k_j> / temperature) at j = i:

    L_text = -1/(2N) sum_i [Contra(E_G_i, E_T) + Contra(E_T_i, E_G)]
    L_img  = -1/(2N) sum_i S_i [Contra(E_G_i, E_I) + Contra(E_I_i, E_G)],  summed over the K views
    S_i,k  = cos(E_T_i, E_I_i,k): how well view k shows what the text names

Differs from the paper: whether S is normalised is not public, so it is a setting; and captions of small corpora
repeat ("Chair"), so entries of the batch that carry the same name share the target instead of being negatives.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

Voting = Literal["none", "raw", "softmax"]


class ClipGSLoss(nn.Module):
    """L_text + image_weight * L_img with a learned temperature.

    Args:
        voting: "none" weighs all views the same, "raw" by max(S, 0), "softmax" by softmax of S over the views.
        voting_temperature: of the softmax.
        image_weight: of L_img; 0 leaves the text loss alone.
    """

    def __init__(self, voting: Voting = "softmax", voting_temperature: float = 0.1, image_weight: float = 1.0) -> None:
        super().__init__()
        self.voting: Voting = voting
        self.voting_temperature = voting_temperature
        self.image_weight = image_weight
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, gaussians: Tensor, text: Tensor, images: Tensor, names: Tensor) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            gaussians: (N, d) unit-length E_G.
            text: (N, d) unit-length E_T.
            images: (N, K, d) unit-length E_I of K views.
            names: (N,) integers; equal numbers mean the same name.

        Returns:
            "loss", "text" and "image", each a scalar.
        """
        scale = self.logit_scale.clamp(max=math.log(100)).exp()
        target = (names[:, None] == names[None]).float()
        target = target / target.sum(1, keepdim=True)
        ones = torch.ones_like(names, dtype=gaussians.dtype)
        text_loss = contrastive(gaussians, text, scale, target, ones)
        votes = view_votes(text, images, self.voting, self.voting_temperature)
        image_loss = torch.stack(
            [contrastive(gaussians, images[:, k], scale, target, votes[:, k]) for k in range(images.shape[1])]
        ).sum()
        return {"loss": text_loss + self.image_weight * image_loss, "text": text_loss, "image": image_loss}


def view_votes(text: Tensor, images: Tensor, voting: Voting, temperature: float) -> Tensor:
    """(N, K) weight of every view, from the frozen teacher alone. Weights of "none" and "softmax" sum to 1 per object."""
    similarity = torch.einsum("nd,nkd->nk", text, images)
    if voting == "none":
        return torch.full_like(similarity, 1 / similarity.shape[1])
    if voting == "raw":
        return similarity.clamp_min(0)
    return (similarity / temperature).softmax(dim=1)


def contrastive(queries: Tensor, keys: Tensor, scale: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Symmetric weighted InfoNCE of matching rows (N, d); `target` (N, N) rows sum to 1, `weights` (N,)."""
    logits = scale * queries @ keys.T
    forward = (target * log_softmax(logits, dim=1)).sum(1)
    backward = (target * log_softmax(logits.T, dim=1)).sum(1)
    return -(weights * (forward + backward)).mean() / 2
