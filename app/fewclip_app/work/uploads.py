"""Uploaded images on the server: verified one by one, counted, and shown as thumbnails."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from fewclip.data import Scan, Skipped, scan
from fewclip.errors import ImageError
from fewclip_app.settings import Settings
from fewclip_app.work import archive
from fewclip_app.work.decoding import thumbnail

THUMB = 160  # pixels of the longer side of what the browser shows


@dataclasses.dataclass(frozen=True)
class Photo:
    """A verified image: the file as uploaded, a small copy to show, and its name for people."""

    path: Path
    thumb: Path
    source: str


class Store:
    """One folder of images within the limits. An image's own name is never part of a path."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._sizes: dict[Path, int] = {}
        folder.mkdir(parents=True)

    def new_path(self, kind: str, suffix: str = "") -> Path:
        """A path in the folder that does not exist yet."""
        return self.folder / f"{kind}-{secrets.token_hex(8)}{suffix}"

    def take(self, path: Path, source: str) -> Photo:
        """Verify an image and move it here.

        Raises:
            ImageError: it can't be used, or there is no room for it.
        """
        size = path.stat().st_size if path.is_file() else 0
        limits = self.settings
        if len(self._sizes) >= limits.max_files:
            raise ImageError(f"no more than {limits.max_files:,} images are allowed")
        if size > self._left():
            raise ImageError(
                f"no room: all images together may take {limits.max_total_bytes / 1e6:,.0f} MB"
            )
        image = thumbnail(path, THUMB, max_pixels=limits.max_pixels)
        kept, thumb = self.new_path("image"), self.new_path("thumb", ".webp")
        image.save(thumb, "WEBP", quality=80)
        shutil.move(path, kept)
        self._sizes[kept] = size
        return Photo(kept, thumb, source)

    def keep(self, photo: Photo, folder: Path) -> Photo:
        """The same image in another folder, to outlast this one; it does not count as an upload."""
        kept = Photo(folder / photo.path.name, folder / photo.thumb.name, photo.source)
        os.link(photo.path, kept.path)
        os.link(photo.thumb, kept.thumb)
        return kept

    def drop(self, photos: Iterable[Photo]) -> None:
        """Delete images."""
        for photo in photos:
            self._sizes.pop(photo.path, None)
            for path in (photo.path, photo.thumb):
                path.unlink(missing_ok=True)

    def unpack(self, file: Path) -> Path:
        """Unpack a zip into a new folder here.

        Raises:
            DataError: the zip is refused.
        """
        target = self.new_path("unpacked")
        archive.unpack(
            file, target, max_files=self.settings.max_files, max_bytes=max(0, self._left())
        )
        return target

    def _left(self) -> int:
        return self.settings.max_total_bytes - sum(self._sizes.values())


def scanned(folder: Path) -> Scan:
    """Scan an unpacked zip; names are those in the zip, not those on the server.

    Raises:
        DataError: it contains no class folders.
    """

    def short(source: str) -> str:
        return source.removeprefix(folder.name + os.sep)

    found = scan(folder)
    found.skipped = [Skipped(short(each.source), each.reason) for each in found.skipped]
    for split, images in found.splits.items():
        found.splits[split] = [
            dataclasses.replace(each, source=short(each.source)) for each in images
        ]
    return found
