"""The CLIP-GS objective (arXiv 2412.19142, section 3.3): a text loss and an image loss with voting.

With unit-length embeddings E_G, E_T, E_I and Contra(q_i, K) = log softmax_j(<q_i, k_j> / temperature) at j = i:

    L_text = -1/(2N) sum_i [Contra(E_G_i, E_T) + Contra(E_T_i, E_G)]
    L_img  = -1/(2N) sum_i S_i [Contra(E_G_i, E_I) + Contra(E_I_i, E_G)],  summed over the K views
    S_i,k  = cos(E_T_i, E_I_i,k): how well view k shows what the text names

Over several processes the N objects are those of all of them. A process scores its own rows against all (so memory is N / n
times N), and every value it returns is the mean over the processes. Gradients flow back through the gathering to the process
an embedding came from; their mean over the processes, which data-parallel training takes, is the gradient of the whole loss.

Differs from the paper: whether S is normalised is not public, so it is a setting; and captions of small corpora
repeat ("Chair"), so entries of the batch that carry the same name share the target instead of being negatives.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from splatsense.training.collectives import gather_integers, gather_rows, process_count, sum_over_processes

Voting = Literal["none", "raw", "softmax"]
MAX_LOGIT_SCALE = math.log(100)  # as CLIP


class ClipGSLoss(nn.Module):
    """L_text + image_weight * L_img with a learned temperature, the same on n processes as on one.

    Args:
        voting: "none" weighs all views the same, "raw" by max(S, 0), "softmax" by softmax of S over the views.
        voting_temperature: of the softmax.
        image_weight: of L_img; 0 leaves the text loss alone.
        temperature: to start from (CLIP: 0.07); stays at 1/100 or more.
        learn_temperature: whether training changes it.
    """

    def __init__(
        self,
        voting: Voting = "softmax",
        voting_temperature: float = 0.1,
        image_weight: float = 1.0,
        temperature: float = 0.07,
        learn_temperature: bool = True,
    ) -> None:
        super().__init__()
        self.voting: Voting = voting
        self.voting_temperature = voting_temperature
        self.image_weight = image_weight
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)), learn_temperature)

    def forward(
        self,
        gaussians: Float[Tensor, "n d"],
        text: Float[Tensor, "n d"],
        images: Float[Tensor, "n k d"],
        names: Int64[Tensor, " n"],
    ) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            gaussians: unit-length E_G of N objects; over several processes, of this one's, as many on each.
            text: unit-length E_T.
            images: unit-length E_I of K views.
            names: equal numbers mean the same name, on any process.

        Returns:
            "loss", "text" and "image", each a scalar.
        """
        with torch.no_grad():  # held here rather than clamped below, where it would lose its gradient and never come back
            self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        with torch.autocast(gaussians.device.type, enabled=False):
            scale = self.logit_scale.exp()
            all_gaussians, all_text, all_images = gather_rows(gaussians), gather_rows(text), gather_rows(images)
            target = (names[:, None] == gather_integers(names)[None]).to(gaussians.dtype)
            target = target / target.sum(1, keepdim=True)
            equal = torch.ones_like(gaussians[:, 0])
            text_loss = contrastive((gaussians, text), (all_gaussians, all_text), scale, target, equal)
            votes = view_votes(text, images, self.voting, self.voting_temperature)
            image_loss = torch.stack(
                [
                    contrastive((gaussians, view), (all_gaussians, all_view), scale, target, vote)
                    for view, all_view, vote in zip(images.unbind(1), all_images.unbind(1), votes.unbind(1), strict=True)
                ]
            ).sum()
            losses = {"loss": text_loss + self.image_weight * image_loss, "text": text_loss, "image": image_loss}
        return {
            name: _with_value_of(loss, sum_over_processes(loss.detach()) / process_count()) for name, loss in losses.items()
        }


def view_votes(
    text: Float[Tensor, "n d"], images: Float[Tensor, "n k d"], voting: Voting, temperature: float
) -> Float[Tensor, "n k"]:
    """Weight of every view, from the targets alone: the frozen teacher's, whose images `--image-map` corrects first.

    Weights of "none" and "softmax" sum to 1 per object; those of "raw" to the sum of the cosines above 0.
    """
    similarity = torch.einsum("nd,nkd->nk", text, images)
    if voting == "none":
        return torch.full_like(similarity, 1 / similarity.shape[1])
    if voting == "raw":
        return similarity.clamp_min(0)
    return (similarity / temperature).softmax(dim=1)


def contrastive(
    pairs: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]],
    everything: tuple[Float[Tensor, "all d"], Float[Tensor, "all d"]],
    scale: Float[Tensor, ""],
    target: Float[Tensor, "n all"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Symmetric weighted InfoNCE of matching rows.

    Args:
        pairs: embeddings of two kinds; row i of one belongs to row i of the other.
        everything: what they are told from: all rows of both kinds, these among them.
        scale: 1 / temperature.
        target: probability of each row of `everything` to be the right one; rows sum to 1.
        weights: of the rows.
    """
    (left, right), (all_left, all_right) = pairs, everything
    forward = (target * log_softmax(scale * left @ all_right.T, dim=1)).sum(1)
    backward = (target * log_softmax(scale * right @ all_left.T, dim=1)).sum(1)
    return -(weights * (forward + backward)).mean() / 2


def _with_value_of(loss: Tensor, value: Tensor) -> Tensor:
    return loss + (value - loss.detach())
