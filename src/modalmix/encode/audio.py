"""Sounds to vectors: CLAP, wav2vec2, HuBERT, WavLM, AST, Whisper and their like, of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modalmix.encode.batches import encode_contents
from modalmix.encode.content import from_paths
from modalmix.encode.encoder import EncoderConfig
from modalmix.encode.entry import Encoded
from modalmix.encode.hub import PREFIX, find_pretrained
from modalmix.encode.transformer_audio import TransformerAudio
from modalmix.errors import EncodeError


class AudioConfig(EncoderConfig):
    """How sounds become vectors."""

    encoder: str = "hf:laion/clap-htsat-unfused"
    """hf:NAME or hf:FOLDER of an audio model; none is bundled."""
    seconds: float = 30.0
    """How much of a clip is heard, from its start."""


def encode_audio(paths: Sequence[Path | str | None], config: AudioConfig | None = None, **settings: Any) -> Encoded:
    """Vectors of sound files (wav, flac, ogg, mp3). None and missing, empty or unreadable files are absent.

    Raises EncodeError (unknown encoder, no soundfile, full disk), ConfigError (unknown setting).
    """
    config = (config or AudioConfig()).replace(**settings)
    if not config.encoder.startswith(PREFIX):
        raise EncodeError("audio encoder", got=repr(config.encoder), expected="hf:NAME or hf:FOLDER")
    encoder = TransformerAudio(config, find_pretrained(config.encoder), config.seconds)
    return encode_contents(from_paths(paths), encoder, config)
