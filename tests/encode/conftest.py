"""Tiny models with random weights, saved to disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]


def _tokenizer(folder: Path) -> None:
    from transformers import BertTokenizerFast

    BertTokenizerFast(vocab={word: row for row, word in enumerate(WORDS)}, model_max_length=32).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models: bert, vit, clip, wav2vec2, resnet."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    base = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    bert = hf.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes)
    hf.BertModel(bert).save_pretrained(base / "bert")
    vit = hf.ViTConfig(image_size=32, patch_size=8, **sizes)
    hf.ViTModel(vit, add_pooling_layer=False).save_pretrained(base / "vit")
    clip = hf.CLIPConfig(
        text_config={"vocab_size": len(WORDS), "max_position_embeddings": 32, "eos_token_id": 3, **sizes},
        vision_config={"image_size": 32, "patch_size": 8, **sizes},
        projection_dim=12,
    )
    hf.CLIPModel(clip).save_pretrained(base / "clip")
    wave = hf.Wav2Vec2Config(
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        **sizes,
    )
    hf.Wav2Vec2Model(wave).save_pretrained(base / "wav2vec2")
    resnet = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    hf.ResNetModel(resnet).save_pretrained(base / "resnet")
    for name in ("bert", "clip"):
        _tokenizer(base / name)
    for name in ("vit", "clip", "resnet"):
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 32, "width": 32},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "resample": 2,
        }
        (base / name / "preprocessor_config.json").write_text(json.dumps(processor))
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000, "feature_size": 1}
    (base / "wav2vec2" / "preprocessor_config.json").write_text(json.dumps(extractor))
    return {path.name: path for path in base.iterdir()}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Five different pictures."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in "abcde"]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)
    return paths
