"""`OpenClipTeacher`: any text+image model of open_clip as a teacher (extra `clip`); CLIP-GS is trained against EVA02-E-14-plus.

Names: `open_clip:MODEL:TAG` takes weights that open_clip knows and fetches, `open_clip:MODEL:FILE` those of a local safetensors
file, `open_clip:MODEL:TAG:FILE` a local file with the preprocessing of a tag. Design:
- Architecture, preprocessing, tokenizer and context length are open_clip's. The preprocessing belongs to weights rather than to
  architectures, so a file needs a tag where the weights of its architecture differ in it.
- The hash covers architecture, weights and preprocessing, but not the precision: embeddings made on a GPU serve on a CPU.
- Weights that come only as a pickle are refused; so are weights whose activation is not the architecture's (QuickGELU).
- open_clip imports torchvision, whose published builds do not load beside a CPU build of torch. What is missing then are two
  operators that no teacher calls; declaring them lets the import pass.
"""

import hashlib
import importlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import CheckpointError, DataError
from splatsense.files import sha256_of
from splatsense.teachers.images import ImageLike, open_on_white

PREFIX = "open_clip"
USAGE = "open_clip:MODEL:TAG, open_clip:MODEL:FILE.safetensors or open_clip:MODEL:TAG:FILE.safetensors"
PREPROCESSING = "open_clip 1: on white, open_clip's own transform"
BATCH_SIZE = {"cpu": 16, "cuda": 256}
Precision = Literal["fp32", "fp16", "bf16"]

_declared: list[torch.library.Library] = []  # operators live as long as the object that declared them


class OpenClipTeacher:
    """A frozen model of open_clip: text and images as unit vectors.

    Making one reads no weights; they are read, and fetched if need be, at the first call that needs them.

    Args:
        model: architecture, such as "ViT-B-32" (`open_clip.list_models()`).
        tag: of published weights, such as "laion2b_s34b_b79k"; "" with a file.
        file: local safetensors weights instead of published ones.
        precision: of the matrix products; by default float16 on a GPU and float32 on a CPU.

    Raises:
        CheckpointError: open_clip is not installed, does not know the model or the tag, or the file is no safetensors file.
    """

    def __init__(self, model: str, tag: str = "", file: str | Path = "", precision: Precision | None = None) -> None:
        self._library = import_open_clip()
        self._model_name, self._tag, self._file = model, tag, Path(file) if file else None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._precision = precision or ("fp16" if self._device == "cuda" else "fp32")
        self.name = ":".join(part for part in (PREFIX, model, tag, str(file)) if part)
        config = self._library.get_model_config(model)
        if config is None:
            raise CheckpointError(f"{self.name}: open_clip has no model {model!r}; `open_clip.list_models()` lists them all.")
        self._config: dict[str, Any] = config
        self.dim: int = config["embed_dim"]
        self._preprocessing = self._find_preprocessing()
        if self._file and (self._file.suffix != ".safetensors" or not self._file.is_file()):
            raise CheckpointError(f"{self.name}: {self._file} is no safetensors file. {_CONVERT}")

    @classmethod
    def from_name(cls, name: str) -> "OpenClipTeacher":
        """The teacher that a name such as "open_clip:ViT-B-32:laion2b_s34b_b79k" stands for. Errors as of the class."""
        parts = name.split(":", 3)
        if len(parts) < 3 or not all(parts):
            raise CheckpointError(f"teacher {name!r}: expected {USAGE}.")
        model, weights, *file = parts[1:]
        if file:
            return cls(model, weights, file[0])
        is_tag = bool(import_open_clip().get_pretrained_cfg(model, weights))
        looks_like_a_file = weights.endswith(".safetensors") or Path(weights).exists()
        return cls(model, "", weights) if looks_like_a_file and not is_tag else cls(model, weights)

    @property
    def hash(self) -> str:
        """Hex id of architecture, weights and preprocessing. The weights' file is read in full the first time."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        described = json.dumps([self._config, self._preprocessing], sort_keys=True, default=list)
        return hashlib.sha256("\n".join((PREPROCESSING, described, sha256_of(self._weights))).encode()).hexdigest()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit-length embeddings; a text is cut after the model's context length.

        Raises:
            DataError: `texts` is a single string.
            CheckpointError: the weights cannot be had.
        """
        if isinstance(texts, str):
            raise DataError(f"encode_text takes a sequence of texts; pass [{texts!r}].")
        tokens = (self._tokenizer(list(batch)).to(self._device) for batch in self._batches(texts))
        return torch.cat([torch.zeros(0, self.dim), *(self._unit(self._network.encode_text(rows)) for rows in tokens)])

    @torch.no_grad()
    def encode_images(self, images: Sequence[ImageLike] | np.ndarray | Tensor) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of images of any size; see `open_on_white` for what counts as an image.

        Raises:
            FormatError: a file cannot be read as an image.
            DataError: an array is not an image, or `images` is a single string.
            CheckpointError: the weights cannot be had.
        """
        if isinstance(images, str):
            raise DataError(f"encode_images takes a sequence of images; pass [{images!r}].")
        parts = [torch.zeros(0, self.dim)]
        for batch in self._batches(images):
            pixels = torch.stack([self._transform(open_on_white(image)) for image in batch])
            dtype = self._library.get_input_dtype(self._precision)
            parts.append(self._unit(self._network.encode_image(pixels.to(self._device, dtype))))
        return torch.cat(parts)

    def _batches(self, items: Any) -> list[Any]:
        size = BATCH_SIZE[self._device]
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _unit(self, embeddings: Tensor) -> Tensor:
        embeddings = embeddings.float().cpu()
        if not bool(embeddings.isfinite().all()):
            raise DataError(f"{self.name}: embeddings are not finite in {self._precision}; take another precision.")
        return normalize(embeddings, dim=-1)

    def _find_preprocessing(self) -> dict[str, Any]:
        """What open_clip does to pictures for these weights, without the size, which is the architecture's."""
        library, model, tag = self._library, self._model_name, self._tag
        known = {each: library.get_pretrained_cfg(model, each) for each in library.list_pretrained_tags_by_model(model)}
        if tag:
            chosen = library.get_pretrained_cfg(model, tag)
            if not chosen:
                raise CheckpointError(f"{self.name}: no file, and no tag of {model}; its tags: {', '.join(known) or 'none'}.")
            if bool(chosen.get("quick_gelu")) != bool(self._config.get("quick_gelu")):
                other = model.removesuffix("-quickgelu") if self._config.get("quick_gelu") else f"{model}-quickgelu"
                raise CheckpointError(f"{self.name}: these weights were trained with another activation; take model {other}.")
            return _preprocessing_of(chosen)
        found = [_preprocessing_of(each) for each in known.values()]
        if any(each != found[0] for each in found):
            raise CheckpointError(
                f"{self.name}: weights of {model} differ in their preprocessing; name the tag that the file comes from, as in "
                f"open_clip:{model}:{next(iter(known))}:{self._file}."
            )
        return found[0] if found else {}

    @cached_property
    def _weights(self) -> Path:
        """The weights' file, fetched by open_clip if need be."""
        if self._file:
            return self._file
        try:
            path = Path(self._library.download_pretrained(self._library.get_pretrained_cfg(self._model_name, self._tag)))
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{self.name}: its weights could not be fetched ({error}). Where they can be, fetch them and pass the file: "
                f"open_clip:{self._model_name}:{self._tag}:FILE.safetensors."
            ) from error
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{self.name}: its weights come as a pickle ({path}), which is not opened. {_CONVERT}")
        return path

    @cached_property
    def _network(self) -> Any:
        try:
            network = self._library.create_model(
                self._model_name,
                str(self._weights),
                precision=self._precision,
                device=self._device,
                force_preprocess_cfg=self._preprocessing,
                require_pretrained=True,
            )
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{self.name}: {self._weights} does not hold the weights of {self._model_name} ({error})."
            ) from error
        return network.eval().requires_grad_(False)

    @cached_property
    def _transform(self) -> Any:
        transform = importlib.import_module("open_clip.transform")
        return transform.image_transform_v2(transform.PreprocessCfg(**self._network.visual.preprocess_cfg), is_train=False)

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            return self._library.get_tokenizer(self._model_name)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            raise CheckpointError(f"{self.name}: its tokenizer cannot be had ({error}).") from error


_CONVERT = "Save the state dict with safetensors.torch.save_file and pass that file."


def _preprocessing_of(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}


def import_open_clip() -> Any:
    """The package open_clip. Raises CheckpointError when it is not installed."""
    try:
        _import_torchvision()
        return importlib.import_module("open_clip")
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"a teacher of open_clip needs the extra `clip`: pip install 'splatsense[clip]' ({error})."
        ) from error


def _import_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module("torchvision")
