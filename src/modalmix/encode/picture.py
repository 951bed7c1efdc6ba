"""The bytes of a picture file -> red, green and blue, whatever the file holds."""

import io
from typing import TYPE_CHECKING

from modalmix.encode.encoder import UnreadableError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit: a decompression bomb beyond it


def read_picture(content: bytes, draft: int | None = None) -> "Image":
    """The picture in RGB, upright as its EXIF says, on white where it is transparent, 16 bits brought down to 8.

    With `draft` a JPEG may be decoded at a fraction of its size that is still at least `draft` pixels a side.
    Raises UnreadableError for anything that is not a whole picture: a truncated file is not half a picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(f"{image.width:,} x {image.height:,} pixels: a decompression bomb")
            if draft is not None:
                image.draft(None, (draft, draft))  # None keeps the mode
            return _rgb(ImageOps.exif_transpose(image))
    except (UnreadableError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableError("a decompression bomb") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableError("not a picture of a known format") from error
    except Exception as error:  # a broken file makes decoders raise nearly anything
        raise UnreadableError(str(error) or type(error).__name__) from error


def _rgb(image: "Image") -> "Image":
    """Any mode to RGB."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip at 255
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
