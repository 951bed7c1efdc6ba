import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modalmix.encode import AudioConfig, encode_audio
from modalmix.encode.hub import find_pretrained
from modalmix.encode.transformer_audio import TransformerAudio
from modalmix.errors import EncodeError


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """A mono clip of half a second at 16 kHz, a stereo one of a second at 44.1 kHz."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "mono.wav", tmp_path / "stereo.flac"]
    soundfile.write(paths[0], rng.normal(size=8000) / 8, 16000, subtype="FLOAT")
    soundfile.write(paths[1], rng.normal(size=(44100, 2)) / 8, 44100)
    return paths


def test_wav2vec2_gives_its_mean_over_time(tiny: dict[str, Path], clips: list[Path]) -> None:
    import torch
    from transformers import Wav2Vec2Model

    encoded = encode_audio([*clips, None], encoder=f"hf:{tiny['wav2vec2']}")
    assert encoded.present.tolist() == [True, True, False]
    samples = soundfile.read(clips[0], dtype="float32")[0]
    scaled = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)  # as the extractor's do_normalize
    model = Wav2Vec2Model.from_pretrained(tiny["wav2vec2"]).eval()
    with torch.no_grad():
        mean = model(torch.from_numpy(scaled)[None]).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(encoded.features[0], mean, atol=1e-5)


def test_a_clip_is_cut_mixed_and_resampled(tiny: dict[str, Path], tmp_path: Path) -> None:
    encoder = TransformerAudio(AudioConfig(), find_pretrained(f"hf:{tiny['wav2vec2']}"), seconds=0.5)
    encoder.load()
    time = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, np.zeros_like(tone)], axis=1), 48000, subtype="FLOAT")
    samples = encoder.decode((tmp_path / "a.wav").read_bytes())
    assert samples.shape == (8000,)  # half a second at 16 kHz
    middle = slice(500, 7500)
    np.testing.assert_allclose(
        samples[middle], np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)[middle] / 2, atol=1e-3
    )


def test_bad_sounds_are_absent_with_a_reason(tiny: dict[str, Path], clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "zero.wav").touch()
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    bad = [tmp_path / f"{name}.wav" for name in ("text", "zero", "short", "nan")]
    with pytest.warns(UserWarning, match="4 of 5 audio contents are unreadable"):
        encoded = encode_audio([clips[0], *bad], encoder=f"hf:{tiny['wav2vec2']}")
    assert encoded.present.tolist() == [True, False, False, False, False]
    reasons = [one["reason"] for one in encoded.provenance["unreadable_first"]]
    assert [reason.split(":")[0] for reason in reasons] == [
        "not a sound file that can be read",
        "the file is empty",
        "shorter than 0.1 s",
        "holds NaN or Inf",
    ]


def test_how_much_is_heard_is_part_of_the_key(tiny: dict[str, Path], clips: list[Path]) -> None:
    first = encode_audio(clips, encoder=f"hf:{tiny['wav2vec2']}")
    assert encode_audio(clips, encoder=f"hf:{tiny['wav2vec2']}", seconds=0.2).path != first.path


def test_without_soundfile_the_error_says_what_to_install(
    tiny: dict[str, Path], clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(EncodeError, match=r"pip install 'modalmix\[audio\]'"):
        encode_audio(clips, encoder=f"hf:{tiny['wav2vec2']}")
