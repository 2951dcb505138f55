import pytest
import torch

from splatsense.teachers import minilm
from splatsense.teachers.minilm import MiniLM

# Every 64th number of sentence-transformers 6.2.0's normalised embedding.
SENTENCE_TRANSFORMERS = {
    "a wooden chair": [0.027487, 0.027356, 0.018526, -0.036121, 0.075949, -0.061629],
    "": [-0.118838, -0.075838, 0.007335, -0.086478, -0.050633, -0.046725],
    "Naïve café, 日本語!": [-0.002374, 0.001647, 0.065271, -0.024052, -0.013731, -0.048707],
    "word " * 300: [-0.008124, -0.032206, 0.004907, 0.038263, -0.022179, -0.052108],
}


@pytest.fixture(scope="module")
def encoder():
    return MiniLM()


def test_embeddings_equal_sentence_transformers(encoder):
    embeddings = encoder.encode(list(SENTENCE_TRANSFORMERS))
    torch.testing.assert_close(embeddings[:, ::64], torch.tensor(list(SENTENCE_TRANSFORMERS.values())), atol=2e-6, rtol=0)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))


@pytest.mark.slow
def test_embeddings_equal_transformers_bert(encoder):
    """The same weights in transformers' own BERT, one text at a time: no padding there, mixed lengths here."""
    transformers = pytest.importorskip("transformers")
    folder = minilm.WEIGHTS.locate().parent
    bert = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [
        "chair", "a wooden chair", "A RED Sofa, with 2 cushions (new)!", "naïve café", "日本語のテキスト", "🪑", "", "\n\t",
        "x" * 400, "lamp " * 500, "a long description of a room, " * 9, "it's 3.14 % of a 'quoted' thing -- really?",
    ]  # fmt: skip
    with torch.no_grad():
        expected = torch.cat([
            bert(**tokenizer(text, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state.mean(1)
            for text in texts
        ])  # fmt: skip
    torch.testing.assert_close(encoder.encode(texts), torch.nn.functional.normalize(expected, dim=1), atol=1e-5, rtol=0)


def test_a_text_does_not_depend_on_its_batch(encoder, monkeypatch):
    texts = ["chair", "a long description of a room, " * 9, "", "a small table", "lamp " * 300]
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    monkeypatch.setattr(minilm, "TOKENS_PER_BATCH", 24)
    torch.testing.assert_close(encoder.encode(texts), together, atol=1e-6, rtol=0)


def test_order_is_kept(encoder):
    texts = [f"{'very ' * (7 * i % 5)}old object number {i}" for i in range(20)]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder.encode([texts[i] for i in order]), encoder.encode(texts)[order], atol=1e-6, rtol=0)


def test_what_lies_beyond_256_tokens_is_cut(encoder):
    kept = "lamp " * (minilm.MAX_TOKENS - 2)  # the first and last tokens are [CLS] and [SEP]
    with_more, without, shorter = encoder.encode([kept + "elephant", kept, kept[:-5] + "elephant"])
    torch.testing.assert_close(with_more, without)
    assert (shorter - without).abs().max() > 1e-4


def test_no_texts(encoder):
    assert encoder.encode([]).shape == (0, 384)
