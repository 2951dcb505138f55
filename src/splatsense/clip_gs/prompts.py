"""Prompt templates, and class embeddings as ensembles over them (CLIP, arXiv 2103.00020, section 3.1.4; CLIP-GS, section 4).

A class embedding is the mean over templates of the normalised text embeddings, normalised again. A class name such as
"shelf / bookcase" lists synonyms; each goes through every template. The 64 templates speak of pictures, renderings and models
of one object, since that is what the encoder was trained to agree with.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.captions import fill_template
from splatsense.errors import DataError

Prompts = Literal["name", "short", "ensemble"]

NAME = ("{name}",)
SHORT = (
    "{name}",
    "a photo of {article} {name}",
    "a 3D model of {article} {name}",
    "a rendering of {article} {name}",
    "{article} {name} on a white background",
    "a picture of one {name}",
)
ENSEMBLE = (
    *SHORT,
    # models of it
    "{article} {name}, 3D model",
    "a 3D asset of {article} {name}",
    "a 3D scan of {article} {name}",
    "a 3D object: {article} {name}",
    "a low-poly 3D model of {article} {name}",
    "a detailed 3D model of {article} {name}",
    "a textured 3D model of {article} {name}",
    "an untextured 3D model of {article} {name}",
    "a CAD model of {article} {name}",
    "a mesh of {article} {name}",
    "a point cloud of {article} {name}",
    "Gaussian splats of {article} {name}",
    "a miniature {name}",
    "a toy {name}",
    "a game asset of {article} {name}",
    "a catalogue model of {article} {name}",
    # pictures of it
    "a photograph of {article} {name}",
    "a close-up photo of {article} {name}",
    "a clear photo of {article} {name}",
    "a blurry photo of {article} {name}",
    "a photo of the whole {name}",
    "a studio photo of {article} {name}",
    "a product photo of {article} {name}",
    "a picture of {article} {name}",
    "an image of {article} {name}",
    "an icon of {article} {name}",
    "an illustration of {article} {name}",
    "a drawing of {article} {name}",
    "a thumbnail of {article} {name}",
    # renderings of it
    "a render of one {name}",
    "a rendered {name}",
    "a computer-generated image of {article} {name}",
    "a rendering of {article} {name} on a white background",
    "a rendering of {article} {name} without background",
    "a simple rendering of {article} {name}",
    "a realistic rendering of {article} {name}",
    "a shaded rendering of {article} {name}",
    # where it is seen from
    "{article} {name} seen from the front",
    "{article} {name} seen from the side",
    "{article} {name} seen from behind",
    "{article} {name} seen from above",
    "{article} {name} seen at an angle",
    "a view of {article} {name}",
    "a turntable view of {article} {name}",
    # what it is like
    "a single {name}",
    "a small {name}",
    "a large {name}",
    "a modern {name}",
    "an old {name}",
    "a plain {name}",
    "a colourful {name}",
    "a typical {name}",
    "the {name}",
    "one {name} and nothing else",
    "this is {article} {name}",
    "there is {article} {name} in the middle",
    "an object called {name}",
    "{article} {name}, isolated",
)
TEMPLATES: dict[Prompts, tuple[str, ...]] = {"name": NAME, "short": SHORT, "ensemble": ENSEMBLE}
"""By the value of `--prompts`: the bare name, 6 templates, 64 templates."""


def class_embeddings(
    encode_text: Callable[[Sequence[str]], Tensor], names: Sequence[str], templates: Sequence[str] = ENSEMBLE
) -> Float[Tensor, "c d"]:
    """Unit-length embeddings of class names.

    Args:
        encode_text: maps a list of texts to (n, d) unit-length embeddings, as `ClipGS.encode_text`.
        names: of the classes; "shelf / bookcase" is a class with two names.
        templates: with `{name}` and, where wanted, `{article}`.

    Raises:
        DataError: there are no names or templates, or one of the names is blank.
    """
    if not names or not templates:
        raise DataError("class_embeddings: needs at least one class name and one template.")
    groups = [[fill_template(template, synonym) for synonym in synonyms(name) for template in templates] for name in names]
    embedded = encode_text([prompt for group in groups for prompt in group])
    means = [part.mean(0) for part in embedded.split([len(group) for group in groups])]
    return normalize(torch.stack(means), dim=-1)


def synonyms(name: str) -> list[str]:
    """The names of a class in plain words: "shelf / book_case" -> ["shelf", "book case"]. Raises DataError for none."""
    found = [" ".join(part.replace("_", " ").split()) for part in name.split("/")]
    if not any(found):
        raise DataError(f"class name {name!r} holds no word.")
    return [part for part in found if part]
