"""An audio encoder of transformers: the audio tower of CLAP, else the mean of the last hidden states over time."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float32

from modalmix.encode.encoder import Encoder, EncoderConfig, UnreadableError, choose_device, inference
from modalmix.encode.hub import Pretrained, tensor_of
from modalmix.errors import EncodeError

MIN_SECONDS = 0.1
CLAP_SECONDS = 10.0  # CLAP crops longer clips at random


class TransformerAudio(Encoder[Float32[np.ndarray, " samples"]]):
    """Clip -> vector, from one channel (the mean of all) at the model's sampling rate.

    Clips are encoded one at a time: several models read the padding of a batch, and would mix the clips up.
    """

    modality = "audio"

    def __init__(self, config: EncoderConfig, pretrained: Pretrained, seconds: float) -> None:
        self.config, self.pretrained = config, pretrained
        self.clap = pretrained.architecture == "clap"
        self.seconds = min(seconds, CLAP_SECONDS) if self.clap else seconds

    @property
    def identity(self) -> dict[str, Any]:
        """See `Encoder.identity`."""
        return {
            "weights": self.pretrained.revision,
            "pooling": "audio tower" if self.clap else "mean over time",
            "normalisation": "l2" if self.clap else "none",
            "preprocessing": f"mono, first {self.seconds:g} s, as preprocessor_config.json",
        }

    def load(self) -> None:
        """See `Encoder.load`."""
        try:
            import soundfile  # noqa: F401 decode() needs it
        except (ImportError, OSError) as error:
            raise EncodeError("sounds are read by soundfile", got=error, fix="pip install 'modalmix[audio]'") from error
        from transformers import AutoFeatureExtractor, AutoModel

        self.device = choose_device(self.config.device)
        self.extractor = self.pretrained.part(AutoFeatureExtractor.from_pretrained)
        model = self.pretrained.model(AutoModel)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self.model = model.to(self.device)

    def decode(self, content: bytes) -> Float32[np.ndarray, " samples"]:
        """The first seconds of the clip: mean of its channels, resampled. Raises UnreadableError."""
        import soundfile
        from scipy.signal import resample_poly

        try:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                rate = file.samplerate
                samples = file.read(round(self.seconds * rate), dtype="float32", always_2d=True).mean(axis=1)
        except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
            raise UnreadableError(f"not a sound file that can be read: {error}") from error
        if len(samples) < MIN_SECONDS * rate:
            raise UnreadableError(f"shorter than {MIN_SECONDS:g} s")
        if not np.isfinite(samples).all():
            raise UnreadableError("holds NaN or Inf")
        ratio = Fraction(int(self.extractor.sampling_rate), rate)
        return resample_poly(samples, ratio.numerator, ratio.denominator).astype(np.float32)

    def blank(self) -> Float32[np.ndarray, " samples"]:
        """A second of silence."""
        return np.zeros(int(self.extractor.sampling_rate), dtype=np.float32)

    def vectors(self, batch: Sequence[Float32[np.ndarray, " samples"]]) -> Float32[np.ndarray, "batch dim"]:
        """See `Encoder.vectors`."""
        return np.concatenate([self._vector(samples) for samples in batch])

    def _vector(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "1 dim"]:
        from torch.nn import functional as F

        rate = int(self.extractor.sampling_rate)
        inputs = self.extractor(samples, sampling_rate=rate, return_tensors="pt").to(self.device)
        with inference(self.device, self.config.precision):
            if self.clap:
                return F.normalize(tensor_of(self.model.get_audio_features(**inputs)).float(), dim=1).cpu().numpy()
            return self.model(**inputs).last_hidden_state.float().mean(dim=1).cpu().numpy()
