"""`MiniTeacher`: the text+image teacher that needs no download. It is not CLIP, and its scores are not CLIP scores.

Two networks that never met, EfficientNet-Lite2 (ImageNet) and MiniLM (sentences), share MiniLM's space through ConSE (Norouzi
et al. 2013, arXiv 1312.5650, section 3.2): an image becomes the mean of the text embeddings of its ten likeliest ImageNet class
names, weighted by their probabilities. Design:
- Everything is centred by the mean of the 1,000 class embeddings, which takes out what all prompts have in common.
- Each network loads at its first use: a text query never reads the image weights, nor an image the text weights.
- The centre square of an image is resized to 260 pixels: nothing is cut off a square render.
- Embeddings carry no gradient but may enter a loss (hence no_grad, not inference_mode).
- `encode_image_features` and `embed_features` split `encode_images`, so that another map can take ConSE's place.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from splatsense.errors import DataError
from splatsense.teachers import efficientnet, imagenet_embeddings, minilm
from splatsense.teachers.images import ImageLike, open_on_white

TOP_CLASSES = 10
BATCH_SIZE = 4  # the fastest on two cores: its activations still fit the caches
PREPROCESSING = "mini 1: on white, centre square, 260 bicubic, (x - 127) / 128; top 10 classes, centred"


class MiniTeacher:
    """Text and images as unit vectors of 384 numbers whose dot product says how well they match, in [-1, 1].

    Making one is free; weights are read, and checked by hash, at the first call that needs them.
    """

    name = "mini"
    dim = minilm.DIM

    @property
    def hash(self) -> str:
        """Changes with any weight, class name or preprocessing step: embeddings kept under it stay valid."""
        embeddings = hashlib.sha256(imagenet_embeddings.PATH.read_bytes()).hexdigest()
        parts = (efficientnet.WEIGHTS.sha256, minilm.WEIGHTS.sha256, minilm.TOKENIZER.sha256, embeddings, PREPROCESSING)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n 384"]:
        """Unit-length embeddings; a text is cut after 256 tokens.

        Raises:
            DataError: `texts` is a single string.
            CheckpointError: The text weights are missing or not the published ones.
        """
        if isinstance(texts, str):
            raise DataError(f"encode_text takes a sequence of texts; pass [{texts!r}].")
        return F.normalize(self._text_encoder.encode(texts) - self._class_mean, dim=1)

    def encode_images(self, images: Sequence[ImageLike] | np.ndarray | Tensor) -> Float[Tensor, "n 384"]:
        """Unit-length embeddings of images of any size; see `open_on_white` for what counts as an image.

        Raises:
            FormatError: A file cannot be read as an image.
            DataError: An array is not an image, or `images` is a single string.
            CheckpointError: The image weights are missing or not the published ones.
        """
        return self.embed_features(self.encode_image_features(images))

    @torch.no_grad()
    def encode_image_features(self, images: Sequence[ImageLike] | np.ndarray | Tensor) -> Float[Tensor, "n 1280"]:
        """The image network's pooled features, before ImageNet's classifier; non-negative, not normalised."""
        if isinstance(images, str):
            raise DataError(f"encode_images takes a sequence of images; pass [{images!r}].")
        features = torch.empty(len(images), efficientnet.FEATURE_DIM)
        for start in range(0, len(images), BATCH_SIZE):
            batch = [_center_square(open_on_white(image)) for image in images[start : start + BATCH_SIZE]]
            features[start : start + len(batch)] = self._image_network(_network_input(torch.from_numpy(np.stack(batch))))
        return features

    @torch.no_grad()
    def embed_features(self, features: Float[Tensor, "*n 1280"]) -> Float[Tensor, "*n 384"]:
        """ConSE: unit-length embeddings of pooled or per-location image features."""
        logits, classes = self._image_network.classifier(features.reshape(-1, features.shape[-1])).topk(TOP_CLASSES)
        mean = F.embedding_bag(classes, self._centered_classes, mode="sum", per_sample_weights=logits.softmax(1))
        return F.normalize(mean, dim=1).reshape(*features.shape[:-1], self.dim)

    @torch.no_grad()
    def dense_features(self, images: Float[Tensor, "n h w 3"], stride: int = 16) -> Float[Tensor, "n h2 w2 384"]:
        """Unit-length embeddings per location: the pooled path without the pooling, at a finer output stride.

        Args:
            images: sRGB in [0, 1], taken at their own size.
            stride: 32, 16 or 8 pixels per location.

        Returns:
            (N, ceil(H / stride), ceil(W / stride), 384); location (i, j) covers the pixels around (i + 0.5, j + 0.5) * stride.

        Raises:
            DataError: `stride` is another number.
        """
        maps = (self._image_network.feature_map(_network_input(image * 255), stride) for image in images.split(1))
        return torch.cat([self.embed_features(features.permute(0, 2, 3, 1)) for features in maps])

    @cached_property
    def _text_encoder(self) -> minilm.MiniLM:
        return minilm.MiniLM()

    @cached_property
    def _image_network(self) -> efficientnet.EfficientNetLite2:
        return efficientnet.load_efficientnet_lite2()

    @cached_property
    def _class_embeddings(self) -> Float[Tensor, "1000 384"]:
        return imagenet_embeddings.load_imagenet_embeddings()

    @cached_property
    def _class_mean(self) -> Float[Tensor, " 384"]:
        return self._class_embeddings.mean(0)

    @cached_property
    def _centered_classes(self) -> Float[Tensor, "1000 384"]:
        return self._class_embeddings - self._class_mean


def _center_square(image: Image.Image) -> np.ndarray:
    """(260, 260, 3) uint8: the largest centred square, resized."""
    size = efficientnet.INPUT_SIZE
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def _network_input(images: Tensor) -> Float[Tensor, "n 3 h w"]:
    """(N, H, W, 3) values in [0, 255] to what the network was trained on, in channels-last memory."""
    return (images.permute(0, 3, 1, 2).float() - 127) / 128
