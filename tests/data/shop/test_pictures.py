"""Pictures: the look can be read from the pixels, and the same item always looks the same."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from modalmix.data.shop.attributes import LOOKS, WORDS
from modalmix.data.shop.pictures import COLOURS, draw, draw_noise, to_jpeg

COMBINATIONS = [dict(zip(LOOKS, values, strict=True)) for values in product(*LOOKS.values())]


@pytest.fixture(scope="module")
def gallery() -> tuple[np.ndarray, list[dict[str, str]]]:
    """Three pictures of every look, 64 x 64 x 3 in [0, 1]."""
    looks = COMBINATIONS * 3
    pictures = [draw(look, 64, np.random.default_rng(seed)) for seed, look in enumerate(looks)]
    return np.stack([np.asarray(picture) for picture in pictures]) / 255.0, looks


def decoded(features: np.ndarray, labels: list[str]) -> float:
    """Accuracy on the third picture of every look of a linear probe fitted on the other two."""
    features = features.reshape(len(features), -1)
    fitted = 2 * len(COMBINATIONS)
    return RidgeClassifier(10.0).fit(features[:fitted], labels[:fitted]).score(features[fitted:], labels[fitted:])


def test_colour_is_the_colour_of_the_name(gallery: tuple[np.ndarray, list[dict[str, str]]]) -> None:
    pictures, looks = gallery
    names = list(COLOURS)
    palette = np.array(list(COLOURS.values())) / 255.0
    for picture, look in zip(pictures, looks, strict=True):
        saturation = picture.max(axis=2) - picture.min(axis=2)
        vivid = picture[saturation >= np.quantile(saturation, 0.97)].mean(axis=0)
        distance = ((palette / np.linalg.norm(palette, axis=1)[:, None] - vivid / np.linalg.norm(vivid)) ** 2).sum(1)
        assert names[int(distance.argmin())] == look["colour"]


def test_shape_can_be_read(gallery: tuple[np.ndarray, list[dict[str, str]]]) -> None:
    pictures, looks = gallery
    background = np.median(pictures[:, :3], axis=(1, 2))[:, None, None]
    outline = np.abs(pictures - background).max(axis=3) > 0.12
    assert decoded(outline.astype(float), [look["shape"] for look in looks]) > 0.9


def test_pattern_can_be_read(gallery: tuple[np.ndarray, list[dict[str, str]]]) -> None:
    pictures, looks = gallery
    middle = pictures[:, 28:52, 20:44].mean(axis=3)
    middle = middle - middle.mean(axis=(1, 2), keepdims=True)
    spectrum = np.abs(np.fft.fft2(middle, axes=(1, 2)))[:, :12]
    spectrum /= spectrum.std(axis=(1, 2), keepdims=True)
    assert decoded(spectrum, [look["pattern"] for look in looks]) > 0.9


def test_two_pictures_of_a_look_differ_and_a_seed_repeats() -> None:
    look = COMBINATIONS[17]
    first, again, other = (to_jpeg(draw(look, 64, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("size", [16, 64, 97, 200])
def test_pictures_have_the_size_asked_for(size: int) -> None:
    for picture in (draw(COMBINATIONS[0], size, np.random.default_rng(0)), draw_noise(size, np.random.default_rng(0))):
        read = Image.open(io.BytesIO(to_jpeg(picture)))
        read.load()
        assert read.size == (size, size)
        assert read.mode == "RGB"
        assert read.format == "JPEG"


def test_the_words_of_the_look_are_all_drawn() -> None:
    assert set(COLOURS) == set(LOOKS["colour"])
    assert not set(LOOKS) & set(WORDS)
