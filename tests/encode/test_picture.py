import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from modalmix.encode.encoder import UnreadableError
from modalmix.encode.picture import read_picture


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixel(content: bytes) -> tuple[int, ...]:
    picture = read_picture(content)
    assert picture.mode == "RGB"
    return tuple(np.asarray(picture)[0, 0].tolist())


def palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (saved(Image.new("RGB", (4, 4), (1, 2, 3))), (1, 2, 3)),
        (saved(Image.new("L", (4, 4), 77)), (77, 77, 77)),
        (saved(Image.new("1", (4, 4), 1)), (255, 255, 255)),
        (saved(palette()), (10, 200, 30)),
        (saved(palette(), transparency=1), (255, 255, 255)),
        (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 0))), (255, 255, 255)),
        (saved(Image.new("RGBA", (4, 4), (200, 0, 0, 255))), (200, 0, 0)),
        (saved(Image.new("LA", (4, 4), (0, 51))), (204, 204, 204)),  # 20 % black on white
        (saved(Image.fromarray(np.full((4, 4), 25700, dtype=np.uint16))), (100, 100, 100)),
        (saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (saved(Image.new("RGB", (4, 4), (9, 8, 7)), "BMP"), (9, 8, 7)),
    ],
    ids=["rgb", "grey", "bit", "palette", "clear-palette", "clear", "opaque", "grey-alpha", "16-bit", "cmyk", "bmp"],
)
def test_any_mode_becomes_rgb(content: bytes, expected: tuple[int, ...]) -> None:
    assert pixel(content) == expected


def test_a_cmyk_jpeg_is_read() -> None:
    red = np.asarray(read_picture(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), draft=8))[0, 0]
    assert red[0] > 240
    assert red[1] < 15


def test_a_picture_is_turned_upright() -> None:
    image = Image.new("RGB", (20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert read_picture(saved(image, "JPEG", exif=exif)).size == (10, 20)


def test_a_large_jpeg_is_decoded_small_but_not_too_small() -> None:
    content = saved(Image.new("RGB", (1600, 800)), "JPEG")
    assert read_picture(content, draft=150).size == (400, 200)
    assert read_picture(content).size == (1600, 800)


def noise(format: str) -> bytes:
    return saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)), format)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_picture_is_unreadable(format: str, share: float) -> None:
    content = noise(format)
    read_picture(content)
    with pytest.raises(UnreadableError):
        read_picture(content[: int(len(content) * share)])


@pytest.mark.filterwarnings("ignore")
def test_broken_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        content = np.frombuffer(noise(format), dtype=np.uint8)
        for _ in range(40):
            broken = content.copy()
            broken[rng.integers(0, min(400, len(broken)), 8)] = rng.integers(0, 256, 8)
            with contextlib.suppress(UnreadableError):
                assert read_picture(broken.tobytes()).mode == "RGB"


@pytest.mark.parametrize("content", [b"x", b"GIF89a", b"<html></html>", b"%PDF-1.4"])
def test_what_is_no_picture_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_picture(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb_is_unreadable(side: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    with pytest.raises(UnreadableError, match="decompression bomb"):
        read_picture(content)
