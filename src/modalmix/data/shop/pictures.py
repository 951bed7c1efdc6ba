"""Drawn pictures: a product before a pale backdrop, whose colour, shape and pattern are the item's look."""

import io
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

from modalmix.data.shop.products import outline, pattern, shading, shadow

RGB = tuple[int, int, int]
COLOURS: Mapping[str, RGB] = {
    "red": (204, 44, 44),
    "orange": (240, 128, 32),
    "yellow": (244, 206, 58),
    "green": (66, 150, 70),
    "teal": (30, 158, 164),
    "blue": (48, 92, 196),
    "purple": (124, 66, 168),
    "pink": (240, 132, 172),
}
BACKDROPS: tuple[RGB, ...] = ((244, 241, 236), (236, 240, 243), (243, 238, 241), (238, 242, 236), (240, 240, 240))
CREAM: RGB = (252, 248, 238)
INK: RGB = (58, 50, 62)
SHADE: RGB = (70, 66, 72)
LIGHT = ("yellow", "pink", "orange")  # colours on which a cream pattern would not show
JITTER = 8  # most by which a channel of a colour differs from its name
QUALITY = 92


def draw(look: Mapping[str, str], size: int, rng: np.random.Generator) -> Image.Image:
    """A picture of size x size pixels of a product with the given colour, shape and pattern.

    Tint, backdrop, place, scale, tilt and side vary: they mean nothing.
    """
    canvas = max(192, 2 * size)
    product = _placed(_product(look, canvas, rng), rng)
    picture = _backdrop(BACKDROPS[int(rng.integers(len(BACKDROPS)))], canvas).copy()
    picture.paste(product, mask=product)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def draw_noise(size: int, rng: np.random.Generator) -> Image.Image:
    """A picture of coloured clouds that shows no product."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((size, size))
    fine = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize((size, size))
    return Image.blend(coarse, fine, 0.4)


def to_jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG file, colours at full resolution."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _product(look: Mapping[str, str], canvas: int, rng: np.random.Generator) -> Image.Image:
    """The product and its shadow on nothing (RGBA)."""
    tint = np.clip(np.array(COLOURS[look["colour"]]) + rng.integers(-JITTER, JITTER + 1, 3), 0, 255)
    body = Image.new("RGB", (canvas, canvas), (int(tint[0]), int(tint[1]), int(tint[2])))
    across, down = (int(offset) for offset in rng.integers(0, canvas // 2, 2))
    printed = pattern(look["pattern"], canvas).crop((across, down, across + canvas, down + canvas))
    body.paste(INK if look["colour"] in LIGHT else CREAM, mask=printed)
    shape = outline(look["shape"], canvas)
    product = Image.composite(ImageChops.multiply(body, shading(canvas)), Image.new("RGB", body.size, SHADE), shape)
    product.putalpha(ImageChops.lighter(shape, shadow(look["shape"], canvas)))
    return product


def _placed(product: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The product a little moved, scaled, tilted, and on every second picture mirrored."""
    if rng.random() < 0.5:
        product = product.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas, scale, tilt = product.width, rng.uniform(0.88, 1.02), rng.uniform(-0.06, 0.06)
    cos, sin = np.cos(tilt) / scale, np.sin(tilt) / scale
    centre, (right, down) = canvas / 2, rng.uniform(-0.04, 0.04, 2) * canvas
    x, y = centre + right, centre + down  # where the centre of the product goes
    inverse = (cos, sin, centre - cos * x - sin * y, -sin, cos, centre + sin * x - cos * y)
    return product.transform(product.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)


@lru_cache(maxsize=32)
def _backdrop(colour: RGB, canvas: int) -> Image.Image:
    """A pale wall above a slightly darker floor."""
    height = np.linspace(0, 1, canvas)
    light = np.where(height < 0.68, 1.0 - 0.05 * height, 0.93 - 0.06 * (height - 0.68))
    rows = np.round(light[:, None] * np.array(colour)).astype(np.uint8)
    return Image.fromarray(np.repeat(rows[:, None], canvas, axis=1))
