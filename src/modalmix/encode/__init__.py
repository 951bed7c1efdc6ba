"""Raw text, images and audio become feature matrices with presence and provenance."""

from modalmix.encode.audio import AudioConfig, encode_audio
from modalmix.encode.compose import TEXT_COLUMNS, compose_text
from modalmix.encode.encoder import EncoderConfig
from modalmix.encode.entry import Encoded
from modalmix.encode.image import ImageConfig, encode_images
from modalmix.encode.text import TextConfig, encode_text, text_columns

__all__ = [
    "TEXT_COLUMNS",
    "AudioConfig",
    "Encoded",
    "EncoderConfig",
    "ImageConfig",
    "TextConfig",
    "compose_text",
    "encode_audio",
    "encode_images",
    "encode_text",
    "text_columns",
]
