"""Words for assets: prompts, and zero-shot labels out of a vocabulary of everyday objects.

Design
- A label or a search text is embedded as the mean over a few prompt templates, renormalised, as CLIP does
  (Radford et al. 2021, section 3.1.4).
- The probability of a label is the softmax of its cosine over a temperature, among the labels asked about: scores
  rank labels, and say nothing about objects that none of the labels names.
"""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from splatsense.clip_gs.captions import fill_template
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.library.embedding_model import EmbeddingModel, resolve_model
from splatsense.library.index import check_k, top_k
from splatsense.library.reading import load_asset

PROMPT_TEMPLATES = ("a photo of {article} {name}", "a 3D model of {article} {name}", "{name}")
TAG_TEMPERATURE = 0.05
ARTICLES = ("a ", "an ", "the ")


def default_labels() -> list[str]:
    """The vocabulary that `Library.tags` chooses from when it is given none: names of everyday objects."""
    lines = resources.files("splatsense.library").joinpath("labels.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line]


def prompt_embeddings(model: EmbeddingModel, texts: Sequence[str], templates: Sequence[str] = PROMPT_TEMPLATES) -> np.ndarray:
    """(N, dim) unit-length embeddings of texts, each the mean over the templates.

    Raises:
        DataError: a text holds nothing but spaces.
    """
    for index, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"text {index + 1} of {len(texts)} is empty; say in words what to look for.")
    prompts = [fill_template(template, _without_article(text)) for text in texts for template in templates]
    embedded = model.encode_text(prompts).detach().cpu().numpy().astype(np.float32)
    mean = embedded.reshape(len(texts), len(templates), -1).mean(1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def rank_labels(
    vector: np.ndarray, label_vectors: np.ndarray, labels: Sequence[str], k: int, temperature: float = TAG_TEMPERATURE
) -> list[tuple[str, float]]:
    """The k likeliest labels of an embedding with their probabilities, best first.

    Args:
        vector: (dim,) unit length.
        label_vectors: (L, dim) unit length.
        labels: L names.
        k: at least 1.
        temperature: of the softmax over the cosines.
    """
    logits = label_vectors @ vector / temperature
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    return [(labels[int(index)], float(probabilities[index])) for index in top_k(probabilities, k)]


def tag(
    source: str | os.PathLike[str] | Gaussians,
    labels: Sequence[str] | None = None,
    k: int = 5,
    model: str | Path | EmbeddingModel = "clip-gs-tiny",
) -> list[tuple[str, float]]:
    """The k likeliest labels of an asset that need not be in a library, with their probabilities, best first.

    Args:
        source: an asset file, or Gaussians.
        labels: to choose from; by default `default_labels()`.
        k: at least 1.
        model: name of a bundled model, folder of a model, or a loaded model.

    Raises:
        DataError: there are no labels to choose from, or k is below 1.
        FormatError: the file cannot be read.
    """
    check_k(k)
    chosen = chosen_labels(labels)
    model = resolve_model(model)
    gaussians = source if isinstance(source, Gaussians) else load_asset(Path(source))
    vector = model.encode_gaussians([gaussians])[0].cpu().numpy()
    return rank_labels(vector, prompt_embeddings(model, chosen), chosen, k)


def chosen_labels(labels: Sequence[str] | None) -> tuple[str, ...]:
    """`labels`, each once, or the default ones for None. Raises DataError when there are none, or they are one string."""
    if isinstance(labels, str):
        raise DataError(f"labels: {labels[:80]!r} is one string, whose letters would be the labels; give a list of them.")
    chosen = tuple(dict.fromkeys(default_labels() if labels is None else labels))
    if not chosen:
        raise DataError("there are no labels to choose from; give at least one.")
    return chosen


def _without_article(text: str) -> str:
    text = " ".join(text.split())
    return next((text[len(article) :] for article in ARTICLES if text.lower().startswith(article)), text)
