"""Data sets: discovery, validation, the seeded few-shot split, and decoded pixels. No torch.

`discovery` finds labelled images in any of the accepted forms, `pool` verifies them, `split` draws
training and validation images, `pixel_cache` keeps them decoded.
"""

from fewclip.data.csv_file import csv_rows, image_beside, is_csv
from fewclip.data.discovery import Data, scan
from fewclip.data.found import Found, Scan, Skipped
from fewclip.data.paths import existing
from fewclip.data.pixel_cache import PixelStore
from fewclip.data.pool import Item, Pool, content_hash, read, read_labelled
from fewclip.data.split import Split, few_shot, list_images

__all__ = [
    "Data",
    "Found",
    "Item",
    "PixelStore",
    "Pool",
    "Scan",
    "Skipped",
    "Split",
    "content_hash",
    "csv_rows",
    "existing",
    "few_shot",
    "image_beside",
    "is_csv",
    "list_images",
    "read",
    "read_labelled",
    "scan",
]
