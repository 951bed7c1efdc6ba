"""A text encoder of transformers: the text tower of a two-tower model, else the mean of the token vectors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32

from modalmix.encode.encoder import Encoder, EncoderConfig, choose_device, inference
from modalmix.encode.hub import TWO_TOWERS, Pretrained, tensor_of

if TYPE_CHECKING:
    import torch


class TransformerText(Encoder[str]):
    """Text -> vector of length 1.

    Two towers (CLIP, SigLIP): their text feature. Others: the mean of the last hidden states over the real tokens
    (Reimers and Gurevych 2019, section 3), which is also what MiniLM was trained with.
    """

    modality = "text"

    def __init__(self, config: EncoderConfig, pretrained: Pretrained, max_length: int) -> None:
        self.config, self.pretrained = config, pretrained
        self.two_towers = pretrained.architecture in TWO_TOWERS
        settings = pretrained.config.get("text_config", pretrained.config)
        self.max_length = min(max_length, int(settings.get("max_position_embeddings") or max_length))

    @property
    def identity(self) -> dict[str, Any]:
        """See `Encoder.identity`."""
        return {
            "weights": self.pretrained.revision,
            "pooling": "text tower" if self.two_towers else "mean of tokens",
            "normalisation": "l2",
            "max_length": self.max_length,
        }

    def load(self) -> None:
        """See `Encoder.load`."""
        from transformers import AutoModel, AutoTokenizer

        self.device = choose_device(self.config.device)
        self.tokenizer = self.pretrained.part(AutoTokenizer.from_pretrained)
        self.max_length = min(self.max_length, self.tokenizer.model_max_length)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        model = self.pretrained.model(AutoModel)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self.model = model.to(self.device)

    def decode(self, content: bytes) -> str:
        """The text."""
        return content.decode("utf-8")

    def blank(self) -> str:
        """A text of one letter."""
        return "a"

    def vectors(self, batch: Sequence[str]) -> Float32[np.ndarray, "batch dim"]:
        """See `Encoder.vectors`."""
        from torch.nn import functional as F

        # SigLIP was trained on texts padded to the end and has no mask
        padding = "max_length" if self.pretrained.architecture.startswith("siglip") else True
        tokens = self.tokenizer(
            list(batch), padding=padding, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.device)
        with inference(self.device, self.config.precision):
            if self.two_towers:
                vectors = tensor_of(self.model.get_text_features(**tokens)).float()
            else:
                vectors = mean_of_tokens(self.model(**tokens).last_hidden_state.float(), tokens["attention_mask"])
            return F.normalize(vectors, dim=1).cpu().numpy()


def mean_of_tokens(
    hidden: "Float[torch.Tensor, 'batch tokens dim']", mask: "Float[torch.Tensor, 'batch tokens']"
) -> "Float[torch.Tensor, 'batch dim']":
    """sum_t m_t h_t / sum_t m_t."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
