"""The backbone in the package, on two small rooms furnished with the demo's objects."""

import json

import numpy as np
import torch
from torch.nn.functional import normalize

from furnished_room import KINDS, room
from splatsense.gaussian_cross.model import Backbone, load_backbone
from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet
from splatsense.model_folder import BUNDLED, CONFIG, WEIGHTS
from splatsense.segmentation.points import Points
from splatsense.segmentation.predict import voxel_features


def likeness(backbone: Backbone) -> float:
    """How often a point of furniture is more similar to a point of its own piece than to one of anything else; 0.5 by chance.

    That is what `splatsense similar` shows. The mean over both rooms, their pieces, and ten points of each.
    """
    rows = []
    for number in (0, 1):
        *points, kinds = room(number)
        features = normalize(backbone.encode(*points), dim=1)
        for kind in range(2, len(KINDS)):
            own = kinds == kind
            for point in own.nonzero()[:: int(own.sum()) // 10, 0].tolist():
                rank = (features @ features[point]).argsort().argsort().double() + 1
                above = rank[own].sum() - own.sum() * (own.sum() + 1) / 2
                rows.append(float(above / (own.sum() * (~own).sum())))
    return float(np.mean(rows))


def test_points_of_one_piece_of_furniture_are_alike():
    torch.manual_seed(0)
    untrained = Backbone(SpUNet(UNET_SIZES["tiny"]).eval(), 0.05, {})
    found, control = likeness(load_backbone("gaussian-cross-tiny")), likeness(untrained)
    assert found > 0.8
    assert control < 0.7


def test_features_are_those_that_similar_compares():
    """In a voxel, normals are averaged and made unit again, as in training."""
    backbone = load_backbone()
    coord, color, normal, _ = room(0)
    none = torch.full((len(coord),), -1)
    features, row = voxel_features(backbone.network, Points(coord, color / 255, normal, none, none), backbone.voxel)
    torch.testing.assert_close(backbone.encode(coord, color, normal), features[row], rtol=1e-3, atol=1e-3)


def test_its_card_says_what_it_is():
    folder = BUNDLED / "gaussian-cross-tiny"
    card = json.loads((folder / CONFIG).read_text())
    assert card["name"] == "gaussian-cross-tiny"
    assert {"licence", "data", "limits", "training", "metrics", "controls", "measured"} <= set(card)
    assert (folder / WEIGHTS).stat().st_size < 16e6
    assert "/" not in "".join(card["training"]["scenes"])  # no path of the machine it was trained on
