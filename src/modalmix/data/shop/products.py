"""The parts of a drawn product: outline, shadow, light and pattern, as masks that many pictures share.

All are square images of the canvas's size, cached; callers do not draw on them.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

# outlines of turned objects: (height from the top, half width) in the unit square
PROFILES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "vase": ((0.12, 0.14), (0.16, 0.11), (0.30, 0.09), (0.56, 0.28), (0.72, 0.25), (0.90, 0.13)),
    "bottle": ((0.06, 0.07), (0.12, 0.06), (0.34, 0.06), (0.47, 0.17), (0.54, 0.18), (0.90, 0.18)),
    "bowl": ((0.44, 0.40), (0.48, 0.39), (0.66, 0.30), (0.81, 0.14), (0.85, 0.13), (0.89, 0.17)),
    "mug": ((0.32, 0.26), (0.36, 0.26), (0.80, 0.25), (0.86, 0.23), (0.89, 0.20)),
}
FEET: Mapping[str, tuple[float, float]] = {  # (height of the floor, half width of the shadow)
    "vase": (0.90, 0.24),
    "bottle": (0.90, 0.25),
    "bowl": (0.89, 0.28),
    "mug": (0.89, 0.30),
    "lamp": (0.90, 0.28),
    "cushion": (0.87, 0.38),
}
STRIPES = 7  # stripes across a canvas; the other patterns repeat as often


@lru_cache(maxsize=64)
def outline(shape: str, canvas: int) -> Image.Image:
    """White where the product is, black elsewhere, smooth at the edge."""
    fine = 2 * canvas
    mask = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(mask)
    if shape == "cushion":
        _fill(pen, _cushion() * fine)
    elif shape == "lamp":
        shade = np.array([(0.36, 0.10), (0.64, 0.10), (0.82, 0.50), (0.18, 0.50)])
        _fill(pen, shade * fine)
        pen.rectangle((0.465 * fine, 0.50 * fine, 0.535 * fine, 0.85 * fine), fill=255)
        pen.rounded_rectangle((0.30 * fine, 0.84 * fine, 0.70 * fine, 0.91 * fine), radius=0.03 * fine, fill=255)
    else:
        if shape == "mug":
            pen.ellipse((0.62 * fine, 0.42 * fine, 0.92 * fine, 0.76 * fine), outline=255, width=round(0.055 * fine))
        _fill(pen, _turned(PROFILES[shape]) * fine)
    return mask.resize((canvas, canvas), Image.Resampling.LANCZOS)


@lru_cache(maxsize=64)
def shadow(shape: str, canvas: int) -> Image.Image:
    """A soft dark ellipse on the floor."""
    floor, half = FEET[shape]
    mask = Image.new("L", (canvas, canvas))
    box = (0.53 - half, floor - 0.035, 0.53 + half, floor + 0.045)
    left, top, right, bottom = (edge * canvas for edge in box)
    ImageDraw.Draw(mask).ellipse((left, top, right, bottom), fill=120)
    return mask.filter(ImageFilter.GaussianBlur(0.018 * canvas))


@lru_cache(maxsize=4)
def shading(canvas: int) -> Image.Image:
    """Light from the left, to multiply a colour with: darker to the right, and a little to the left and the bottom."""
    across, down = np.meshgrid(np.linspace(0, 1, canvas), np.linspace(0, 1, canvas))
    light = 1.0 - 1.1 * np.maximum(across - 0.42, 0) ** 1.5 - 0.8 * np.maximum(0.42 - across, 0) ** 1.6 - 0.08 * down
    return Image.fromarray(np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=64)
def pattern(name: str, canvas: int) -> Image.Image:
    """White where the pattern is printed: a square of twice the canvas, to crop from anywhere."""
    side = 2 * canvas
    period = canvas / STRIPES
    # the phase within a period, in [0, 1)
    across, down = np.meshgrid(np.arange(side) / period % 1, np.arange(side) / period % 1)
    if name == "stripes":
        printed = down < 0.5
    elif name == "dots":
        printed = (across - 0.5) ** 2 + (down - 0.5) ** 2 < 0.32**2
    elif name == "checks":
        printed = (across < 0.5) ^ (down < 0.5)
    elif name == "zigzag":
        printed = (down + 1.2 * np.abs(across - 0.5)) % 1 < 0.42
    else:
        printed = np.zeros_like(across, dtype=bool)
    mask = Image.fromarray((255 * printed).astype(np.uint8))
    return mask.filter(ImageFilter.GaussianBlur(0.004 * canvas))


def _turned(profile: tuple[tuple[float, float], ...]) -> Float[np.ndarray, "points 2"]:
    """The closed outline of a turned object: its profile with the corners rounded by a running mean, and mirrored."""
    height, half = np.array(profile).T
    fine = np.linspace(height[0], height[-1], 120)
    width = np.convolve(np.pad(np.interp(fine, height, half), 8, mode="edge"), np.full(17, 1 / 17), mode="valid")
    right = np.stack([0.5 + width, fine], axis=1)
    left = np.stack([0.5 - width, fine], axis=1)
    return np.concatenate([right, left[::-1]])


def _cushion() -> Float[np.ndarray, "points 2"]:
    """A square with drawn-out corners and sides that curve in."""
    turn = np.linspace(0, 2 * np.pi, 241)[:-1]
    radius = 0.30 + 0.125 * np.abs(np.sin(2 * turn)) ** 3.5
    return np.stack([0.5 + radius * np.cos(turn), 0.55 + radius * np.sin(turn)], axis=1)


def _fill(pen: ImageDraw.ImageDraw, points: Float[np.ndarray, "points 2"]) -> None:
    pen.polygon([(float(x), float(y)) for x, y in points], fill=255)
