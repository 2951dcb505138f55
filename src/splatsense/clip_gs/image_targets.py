"""Image targets for a teacher whose two towers never met: ConSE's embeddings, corrected by the captions of the corpus.

The mini teacher sees only ImageNet's classes in a picture, so a wardrobe, which is none of them, gets a poor target. A
linear map from the image network's pooled features to caption embeddings, fitted by ridge regression on the training
objects, knows better. It is cross-fitted: the targets of an object come from a map that saw neither it nor any object
of its name, so they hold no trace of its own caption.

Differs from the paper: CLIP-GS trains against EVA-CLIP, which needs no such map; `PretrainConfig.image_map` = 0 goes without.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import DataError


def cross_fitted_targets(
    features: list[Float[Tensor, "v f"]],
    captions: Float[Tensor, "n d"],
    names: Int[Tensor, " n"],
    weights: Float[Tensor, " n"],
    ridge: float = 1.0,
    folds: int = 5,
) -> list[Float[Tensor, "v d"]]:
    """Unit-length embeddings of every object's views, predicted by maps fitted to objects of other names.

    Args:
        features: pooled, non-negative image features of the views of N objects.
        captions: unit-length mean caption embedding per object.
        names: equal for objects of one name; names, not objects, are dealt to folds.
        weights: of the objects in the fit.
        ridge: strength of the regularisation, relative to the total variance of the features.
        folds: number of maps.

    Raises:
        DataError: a map would be fitted to one object, or to several that look the same.
    """
    views = [normalize(rows.float().sqrt(), dim=-1) for rows in features]
    means = torch.stack([rows.mean(0) for rows in views])
    fold = names % folds
    targets: list[Tensor] = [captions.new_empty(0)] * len(views)
    for index in range(folds):
        seen = fold != index
        center, matrix = fit_ridge(means[seen], captions[seen], weights[seen], ridge)
        for row in (~seen).nonzero()[:, 0].tolist():
            targets[row] = normalize((views[row] - center) @ matrix, dim=-1)
    return targets


def fit_ridge(
    x: Float[Tensor, "n f"], y: Float[Tensor, "n d"], weights: Float[Tensor, " n"], ridge: float
) -> tuple[Float[Tensor, " f"], Float[Tensor, "f d"]]:
    """Centre c and matrix W of the weighted ridge regression (x - c) W ~ y - mean(y); the mean is left out on purpose.

    Captions share a direction that says nothing about an object, and the teacher's space is centred.
    """
    center = x.mean(0)
    root = weights.sqrt()[:, None]
    rows = (x - center) * root
    gram = rows.T @ rows
    if not bool(gram.diagonal().any()):
        raise DataError("--image-map: too few objects of different names and looks to fit a map to; use --image-map 0.")
    gram.diagonal().add_(ridge * gram.diagonal().sum())
    return center, torch.linalg.solve(gram, rows.T @ ((y - y.mean(0)) * root))
