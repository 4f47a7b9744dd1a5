"""Reading one image as a person sees it: upright and RGB. Not its size or scale; no torch.

Where this differs from Pillow's own `convert("RGB")`:

- EXIF orientation is applied; open_clip ignores it.
- Transparent pixels become white; dropping the alpha channel would show the colour beneath.
- 16-bit grey is scaled to 8 bits; Pillow clips it to white.
- An animated image is its first frame.

Only formats that a camera, a browser or a scanner writes are read (`FORMATS`), and their headers
are checked before Pillow parses them (`decoding/image_headers.py`).
"""

from fewclip.images.formats import FORMATS, FORMATS_VARIABLE, image_suffixes
from fewclip.images.reading import (
    MAX_ASPECT,
    MAX_PIXELS,
    Image,
    decode,
    load_image,
    readable,
)

__all__ = [
    "FORMATS",
    "FORMATS_VARIABLE",
    "MAX_ASPECT",
    "MAX_PIXELS",
    "Image",
    "decode",
    "image_suffixes",
    "load_image",
    "readable",
]
