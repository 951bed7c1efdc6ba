from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modalmix.encode import ImageConfig, encode_images
from modalmix.encode.image import image_encoder
from modalmix.errors import EncodeError


def pixels_of(path: Path) -> np.ndarray:
    """The oracle of the preprocessing in the tiny models' preprocessor_config.json."""
    with Image.open(path) as image:
        resized = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) / 255.0
    return ((resized - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)


def test_vit_gives_its_class_token(tiny: dict[str, Path], pictures: list[Path]) -> None:
    import torch
    from transformers import ViTModel

    encoded = encode_images(pictures, encoder=f"hf:{tiny['vit']}")
    model = ViTModel.from_pretrained(tiny["vit"], add_pooling_layer=False).eval()
    with torch.no_grad():
        hidden = model(pixel_values=torch.from_numpy(pixels_of(pictures[2]))).last_hidden_state
    np.testing.assert_allclose(encoded.features[2], hidden[0, 0], atol=1e-5)
    assert encoded.provenance["normalisation"] == "none"


def test_a_convolutional_network_gives_the_mean_of_its_map(tiny: dict[str, Path], pictures: list[Path]) -> None:
    import torch
    from transformers import ResNetModel

    encoded = encode_images(pictures, encoder=f"hf:{tiny['resnet']}")
    model = ResNetModel.from_pretrained(tiny["resnet"]).eval()
    with torch.no_grad():
        pooled = model(pixel_values=torch.from_numpy(pixels_of(pictures[0]))).pooler_output
    np.testing.assert_allclose(encoded.features[0], pooled[0, :, 0, 0], atol=1e-5)


def test_the_image_tower_of_clip(tiny: dict[str, Path], pictures: list[Path]) -> None:
    encoded = encode_images(pictures, encoder=f"hf:{tiny['clip']}")
    assert encoded.features.shape == (5, 12)
    np.testing.assert_allclose(np.linalg.norm(encoded.features, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "clip", "resnet"])
def test_a_row_does_not_depend_on_its_batch(name: str, tiny: dict[str, Path], pictures: list[Path]) -> None:
    encoder = image_encoder(ImageConfig(encoder=f"hf:{tiny[name]}"))
    encoder.load()
    decoded = [encoder.decode(path.read_bytes()) for path in pictures]
    alone = np.concatenate([encoder.vectors([one]) for one in decoded])
    np.testing.assert_allclose(encoder.vectors(decoded), alone, atol=1e-5)


def test_bad_pictures_are_absent_and_named(tiny: dict[str, Path], pictures: list[Path], tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    bad = [tmp_path / name for name in ("cut.jpg", "zero.jpg", "page.jpg", "missing.jpg")]
    with pytest.warns(UserWarning, match="4 of 10 image contents are unreadable"):
        encoded = encode_images([pictures[0], *bad, None, *pictures[1:]], encoder=f"hf:{tiny['vit']}")
    assert encoded.present.tolist() == [True, *[False] * 5, *[True] * 4]
    named = {Path(one["content"]).name: one["reason"] for one in encoded.provenance["unreadable_first"]}
    assert list(named) == ["cut.jpg", "zero.jpg", "page.jpg", "missing.jpg"]
    assert "truncated" in named["cut.jpg"]
    assert named["page.jpg"] == "not a picture of a known format"


def test_no_picture_at_all_still_has_the_dim(tiny: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match="no item has any image"):
        encoded = encode_images([None, None], encoder=f"hf:{tiny['vit']}")
    assert encoded.features.shape == (2, 16)


def test_an_unknown_encoder_is_an_error(pictures: list[Path]) -> None:
    with pytest.raises(EncodeError, match="Did you mean 'efficientnet-lite0'"):
        encode_images(pictures, encoder="efficientnet")
