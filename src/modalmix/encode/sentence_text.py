"""A text encoder of sentence-transformers: pooling, normalisation and prompts are as its folder says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from modalmix.encode.encoder import Encoder, EncoderConfig, choose_device, inference
from modalmix.encode.hub import Pretrained


class SentenceText(Encoder[str]):
    """Text -> vector of length 1, by SentenceTransformer.encode."""

    modality = "text"

    def __init__(self, config: EncoderConfig, pretrained: Pretrained, max_length: int) -> None:
        self.config, self.pretrained, self.max_length = config, pretrained, max_length

    @property
    def identity(self) -> dict[str, Any]:
        """See `Encoder.identity`."""
        return {
            "weights": self.pretrained.revision,
            "pooling": "as sentence-transformers",
            "normalisation": "l2",
            "max_length": self.max_length,
        }

    def load(self) -> None:
        """See `Encoder.load`."""
        from sentence_transformers import SentenceTransformer

        self.device = choose_device(self.config.device)
        self.model = self.pretrained.part(SentenceTransformer, device=str(self.device))
        known = self.model.max_seq_length
        self.model.max_seq_length = min(known or self.max_length, self.max_length)

    def decode(self, content: bytes) -> str:
        """The text."""
        return content.decode("utf-8")

    def blank(self) -> str:
        """A text of one letter."""
        return "a"

    def vectors(self, batch: Sequence[str]) -> Float32[np.ndarray, "batch dim"]:
        """See `Encoder.vectors`."""
        with inference(self.device, self.config.precision):
            vectors = self.model.encode(
                list(batch),
                batch_size=len(batch),
                show_progress_bar=False,
                convert_to_tensor=True,
                normalize_embeddings=True,
            )
        return vectors.float().cpu().numpy()
