"""Pictures to vectors: the bundled EfficientNet-Lite0, CLIP, SigLIP, DINO, ViT and any transformers image model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modalmix.encode.batches import encode_contents
from modalmix.encode.content import from_paths
from modalmix.encode.efficientnet import EfficientNetLite
from modalmix.encode.encoder import Encoder, EncoderConfig
from modalmix.encode.entry import Encoded
from modalmix.encode.hub import PREFIX, find_pretrained
from modalmix.encode.transformer_image import TransformerImage
from modalmix.errors import EncodeError, nearest

EFFICIENTNET = "efficientnet-lite0"


class ImageConfig(EncoderConfig):
    """How pictures become vectors."""

    encoder: str = EFFICIENTNET
    """efficientnet-lite0 is bundled (1280 numbers, works offline); hf:NAME or hf:FOLDER is any image model."""
    batch_size: int = 16
    """Pictures a batch; 16 is best on a CPU, an accelerator likes 128."""


def encode_images(paths: Sequence[Path | str | None], config: ImageConfig | None = None, **settings: Any) -> Encoded:
    """Vectors of picture files. None, a missing, empty, truncated or otherwise unreadable file is absent, and said so.

    `settings` change single fields: `encode_images(paths, encoder="hf:facebook/dinov2-small")`.
    Raises EncodeError (unknown encoder, full disk), ConfigError (unknown setting).
    """
    config = (config or ImageConfig()).replace(**settings)
    return encode_contents(from_paths(paths), image_encoder(config), config)


def image_encoder(config: ImageConfig) -> Encoder[Any]:
    """The encoder that the settings name. Raises EncodeError."""
    if config.encoder == EFFICIENTNET:
        return EfficientNetLite(config)
    if not config.encoder.startswith(PREFIX):
        raise EncodeError(f"image encoder '{config.encoder}'", fix=nearest(config.encoder, [EFFICIENTNET, "hf:NAME"]))
    return TransformerImage(config, find_pretrained(config.encoder))
