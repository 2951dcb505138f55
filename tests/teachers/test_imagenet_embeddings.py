import pytest
import torch
from safetensors.torch import save_file

from splatsense.errors import CheckpointError
from splatsense.teachers.imagenet_embeddings import (
    imagenet_class_names,
    load_imagenet_embeddings,
)


def test_the_kept_embeddings_are_those_of_the_names(class_embeddings):
    torch.testing.assert_close(load_imagenet_embeddings(), class_embeddings, atol=2e-4, rtol=0)  # float16 below 0.5: 1.2e-4


def test_names_are_in_class_order():
    names = imagenet_class_names()
    assert len(names) == 1000
    known = {
        0: "tench",
        207: "golden retriever",
        285: "Egyptian cat",
        423: "barber chair",
        817: "sports car",
        999: "toilet tissue",
    }
    assert {i: names[i] for i in known} == known


def test_embeddings_of_other_text_weights_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"embeddings": torch.zeros(1000, 384)}, path, {"text_weights_sha256": "0" * 64, "prompt": "a photo of a {}"})
    with pytest.raises(CheckpointError, match=r"other\.safetensors: computed from .*0000"):
        load_imagenet_embeddings(path)
