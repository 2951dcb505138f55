"""`ClipGS`: splats, images and text in one embedding space. Load the bundled model with `load_model("clip-gs-tiny")`.

Design
- The Gaussian encoder is ours and trained; the image and text towers are the frozen teacher it was trained against.
- Every part loads on first use, so a text search never reads the Gaussian encoder and an indexing run never the
  text tower.
- Both our embeddings and texts are centred: what all of them share says nothing about any of them, and makes some objects
  answer every query. Pictures stay as the teacher gives them.
- A model on disk is a folder as of `model_folder.py`. Its card holds the teacher's hash: another teacher of the same name
  would put words and pictures elsewhere.
- It also holds the embedding of one fixed object. It is computed again when the encoder loads: code that reads the weights
  in another way than the code that trained them is found out, not used.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import CheckpointError, DataError
from splatsense.gaussians import Gaussians
from splatsense.model_folder import CONFIG, WEIGHTS, find_model, halved, read_card, read_weights, save_model_folder
from splatsense.teachers import Teacher, load_teacher
from splatsense.teachers.images import ImageLike

if TYPE_CHECKING:
    from splatsense.clip_gs.encoder import GaussianEncoder

GOLDEN = "golden_embedding"  # in the card, see golden.py
TEXT_CENTER = "text_center"  # among the weights, though it is no part of the encoder
MIN_OPACITY = 0.05  # Gaussians fainter than this are not shown to the encoder
OUTLIERS = 0.002  # fraction of means at both ends of every axis that does not count for an object's size


class ClipGS:
    """One embedding space for Gaussians, images and text (CLIP-GS, arXiv 2412.19142).

    Attributes:
        name: of the model.
        dim: d, of every embedding.
        hash: identifies the weights; vectors of different hashes must not be compared.
        card: what the model was trained on and how it measures.
    """

    def __init__(self, folder: Path, verify: bool = True, device: str | torch.device = "cpu") -> None:
        self._folder, self._verify, self._device = folder, verify, device
        self.card = read_card(folder)
        try:
            self.name: str = self.card["name"]
            self.dim: int = self.card["encoder"]["embed_dim"]
            self.hash: str = self.card["sha256"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / CONFIG}: lacks {error}; it is not the card of a CLIP-GS model.") from error

    def __repr__(self) -> str:
        return f"ClipGS({self.name!r}, dim={self.dim}, hash={self.hash[:12]})"

    @functools.cached_property
    def teacher(self) -> Teacher:
        """The frozen image and text towers. Raises CheckpointError when they are not those that training had."""
        return self.check_teacher(load_teacher(self.card["teacher"]))

    def check_teacher(self, teacher: Teacher) -> Teacher:
        """The teacher itself, when it is the one in the card; cards of earlier versions hold a name only.

        Raises:
            CheckpointError: its weights or preprocessing are others than in training.
        """
        trained, found = self.card.get("teacher_hash", teacher.hash), teacher.hash
        if found != trained:
            raise CheckpointError(
                f"{self._folder / CONFIG}: was trained against the teacher {self.card['teacher']!r} of hash {trained[:12]}; "
                f"the one here has {found[:12]}, whose embeddings mean something else. Use the weights and the version "
                "of splatsense that the model was trained with, or train it again."
            )
        return teacher

    @functools.cached_property
    def encoder(self) -> "GaussianEncoder":
        """The trained network, in evaluation mode.

        Raises:
            CheckpointError: the weights are missing, damaged or not what the card says, or give other embeddings than when
                they were saved.
        """
        from splatsense.clip_gs.encoder import EncoderConfig, GaussianEncoder
        from splatsense.clip_gs.golden import check_golden

        path = self._folder / WEIGHTS
        weights = read_weights(self._folder, self.card)
        weights.pop(TEXT_CENTER, None)
        encoder = GaussianEncoder(EncoderConfig.from_card(self.card["encoder"], str(self._folder / CONFIG)))
        encoder.load_weights(weights, str(path))
        encoder.eval().requires_grad_(False)
        if self._verify and GOLDEN in self.card:
            check_golden(encoder, self.card[GOLDEN], str(path))
        return encoder.to(self._device)

    @functools.cached_property
    def text_center(self) -> Float[Tensor, " d"]:
        """What is subtracted from text embeddings. Raises CheckpointError when the weights cannot be read."""
        path = self._folder / WEIGHTS
        try:
            with safe_open(path, "pt") as weights:
                return weights.get_tensor(TEXT_CENTER).float()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}).") from error

    def encode_gaussians(self, objects: Sequence[Gaussians], batch_size: int = 16) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of objects, in order, on the CPU.

        Each object is centred and scaled to longest half-extent 1 first; its up axis must be y, as in glTF.

        Raises:
            DataError: an object holds no Gaussian that can be seen.
        """
        if not isinstance(objects, Sequence):
            raise DataError(f"encode_gaussians takes a list of Gaussians, got {type(objects).__name__}; wrap one as [object].")
        parts = [encode_batch(self.encoder, objects[i : i + batch_size]) for i in range(0, len(objects), batch_size)]
        return torch.cat(parts) if parts else torch.zeros(0, self.dim)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of texts, in order, centred by `text_center`."""
        return normalize(self.teacher.encode_text(texts) - self.text_center, dim=-1)

    def encode_images(self, images: Sequence[ImageLike]) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of pictures (paths, PIL images or (H, W, 3) uint8 arrays), in order."""
        return self.teacher.encode_images(images)


def encode_batch(encoder: "GaussianEncoder", objects: Sequence[Gaussians]) -> Tensor:
    """Unit-length embeddings (B, d) of a few objects by an encoder in evaluation mode."""
    from splatsense.clip_gs.tokenizer import GaussianBatch

    device = next(encoder.parameters()).device
    batch = GaussianBatch.stack(
        [visible(gaussians, "encode_gaussians").normalized(OUTLIERS) for gaussians in objects], encoder.config.gaussians
    )
    with torch.inference_mode():
        return encoder(batch.to(device)).cpu()


def visible(gaussians: Gaussians, what: str) -> Gaussians:
    """Those of an opacity of `MIN_OPACITY` or more. Raises DataError, which begins with `what`, when there is none."""
    shown = gaussians[gaussians.opacities >= MIN_OPACITY]
    if len(shown) == 0:
        raise DataError(f"{what}: none of the {len(gaussians)} Gaussians has an opacity of {MIN_OPACITY} or more.")
    return shown


def save_model(
    folder: str | Path, encoder: "GaussianEncoder", name: str, teacher: Teacher, card: dict[str, Any], text_center: Tensor
) -> None:
    """Write a model folder: weights in half precision, configuration and card.

    Args:
        folder: made when missing.
        encoder: the trained network.
        name: of the model.
        teacher: that it was trained against; the card holds its name and hash.
        card: JSON-able facts: data, licences, metrics, how it was trained.
        text_center: (d,) to subtract from text embeddings; zeros leave them as they are.
    """
    from splatsense.clip_gs.encoder import GaussianEncoder
    from splatsense.clip_gs.golden import golden_embedding

    rounded = GaussianEncoder(encoder.config)
    rounded.load_weights(halved(encoder.state_dict()), name)
    facts = {
        "name": name,
        "teacher": teacher.name,
        "teacher_hash": teacher.hash,
        "encoder": asdict(encoder.config),
        GOLDEN: golden_embedding(rounded.eval()),
        **card,
    }
    save_model_folder(Path(folder), encoder.state_dict() | {TEXT_CENTER: text_center}, facts)


def load_model(name_or_path: str | Path = "clip-gs-tiny", verify: bool = True, device: str | torch.device = "cpu") -> ClipGS:
    """A bundled model by name, or any model folder by path. No network.

    Args:
        name_or_path: "clip-gs-tiny", or a folder.
        verify: embed one object when the encoder loads and compare with the embedding in the model card.
        device: where the Gaussian encoder runs, such as "cuda"; embeddings are on the CPU all the same.

    Raises:
        CheckpointError: there is no such model, or its folder is damaged.
        DataError: there is no such device.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise DataError(f'load_model: device="{device}", but PyTorch finds no CUDA device; use "cpu".')
    return ClipGS(find_model(name_or_path), verify, device)
