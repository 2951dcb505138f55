"""Text embeddings of the 1,000 ImageNet class names, computed once and kept beside this file.

`imagenet_classes.json` lists the first WordNet synonym of each class in the order of the classifier's outputs (as tabulated in
timm 1.0.31, `imagenet_synsets.txt` and `imagenet_synset_to_lemma.txt`). `imagenet_embeddings.safetensors` holds MiniLM's
embeddings of the prompts in float16: computing them takes 2 s, reading them 1 ms.
`write_imagenet_embeddings()` makes the file anew.
"""

import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from splatsense.errors import CheckpointError
from splatsense.teachers.minilm import WEIGHTS, MiniLM

PROMPT = "a photo of a {}"
PATH = Path(__file__).with_name("imagenet_embeddings.safetensors")


def imagenet_class_names() -> list[str]:
    """The 1,000 class names in class order; two pairs of classes share a name (crane, maillot)."""
    return json.loads(Path(__file__).with_name("imagenet_classes.json").read_text("utf-8"))


def compute_imagenet_embeddings(text_encoder: MiniLM) -> Float[Tensor, "1000 384"]:
    """Unit-length embeddings of "a photo of a <name>" for each class."""
    return text_encoder.encode([PROMPT.format(name) for name in imagenet_class_names()])


def load_imagenet_embeddings(path: Path = PATH) -> Float[Tensor, "1000 384"]:
    """What `compute_imagenet_embeddings` gave when the file was written, to float16 precision.

    Raises:
        CheckpointError: The file was computed with other text weights or another prompt.
    """
    with safe_open(path, "pt") as file:
        found = file.metadata()
        embeddings = file.get_tensor("embeddings").float()
    if found != _metadata():
        raise CheckpointError(f"{path}: computed from {found}, expected {_metadata()}; reinstall splatsense.")
    return embeddings


def write_imagenet_embeddings(path: Path = PATH) -> None:
    """Compute the embeddings and write them in the form `load_imagenet_embeddings` reads."""
    save_file({"embeddings": compute_imagenet_embeddings(MiniLM()).to(torch.float16)}, path, _metadata())


def _metadata() -> dict[str, str]:
    return {"text_weights_sha256": WEIGHTS.sha256, "prompt": PROMPT}
