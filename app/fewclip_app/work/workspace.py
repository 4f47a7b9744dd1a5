"""One person's classes, images and model on the server. No layout and no training here."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewclip.class_set import clean_label
from fewclip.data import Skipped
from fewclip.errors import DataError, ImageError
from fewclip_app.settings import Settings
from fewclip_app.work import archive
from fewclip_app.work.uploads import Photo, Store, scanned

if TYPE_CHECKING:
    from fewclip.data import Found
    from fewclip_app.work.job_queue import Job
    from fewclip_app.work.training import Model


@dataclasses.dataclass
class ClassDraft:
    """One class as it is being filled."""

    key: str
    name: str = ""
    photos: list[Photo] = dataclasses.field(default_factory=list)
    refused: list[Skipped] = dataclasses.field(default_factory=list)


class Workspace:
    """What one person has put in and got out. Methods may be called from several threads.

    Attributes:
        store: their folder, which goes when they are done with it.
        boxes: the classes, in the order of the page.
        test: images with labels to measure on, which are never trained on.
        remarks: what was not used from a zip, and why.
        model: the current model, once there is one.
        job: the current or last training.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(folder, settings)
        self.lock = threading.RLock()
        self.boxes: list[ClassDraft] = []
        self.test: list[tuple[Photo, str]] = []
        self.remarks: list[Skipped] = []
        self.model: Model | None = None
        self.job: Job | None = None
        self.clear()

    def take_model(self, model: Model) -> None:
        """Make a model the current one, and delete the files of the one before."""
        with self.lock:
            old, self.model = self.model, model
        if old is not None and old.folder is not None:
            shutil.rmtree(old.folder, ignore_errors=True)

    def delete(self) -> None:
        """Stop what runs and delete everything."""
        if self.job is not None:
            self.job.stop()
        self.model = None
        shutil.rmtree(self.store.folder, ignore_errors=True)

    # ---- class by class ----------------------------------------------------------------------

    def add_box(self, name: str = "") -> ClassDraft:
        """A new class.

        Raises:
            DataError: there are as many as are allowed.
        """
        with self.lock:
            if len(self.boxes) >= self.settings.max_classes:
                raise DataError(f"no more than {self.settings.max_classes} classes are allowed")
            box = ClassDraft(secrets.token_hex(8), clean_label(name))
            self.boxes.append(box)
            return box

    def box(self, key: str) -> ClassDraft:
        """The class of a card on the page.

        Raises:
            DataError: it was removed meanwhile.
        """
        for box in self.boxes:
            if box.key == key:
                return box
        raise DataError("this class was removed; reload the page")

    def rename_box(self, key: str, name: str) -> None:
        with self.lock:
            self.box(key).name = clean_label(name)

    def remove_box(self, key: str) -> None:
        with self.lock:
            box = self.box(key)
            self.boxes.remove(box)
            self.store.drop(box.photos)

    def add_photos(self, key: str, files: Iterable[tuple[Path, str]]) -> None:
        """Take verified (file, its name for people); the others are told in `box.refused`."""
        with self.lock:
            box = self.box(key)
            box.refused = []
            for path, source in files:
                try:
                    box.photos.append(self.store.take(path, source))
                except ImageError as error:
                    path.unlink(missing_ok=True)
                    box.refused.append(Skipped(source, str(error)))

    def keep_photos(self, key: str, thumbs: Sequence[str]) -> None:
        """Drop the images of a class whose thumbnail the page no longer shows."""
        with self.lock:
            box = self.box(key)
            shown = {Path(thumb).name for thumb in thumbs}
            self.store.drop(photo for photo in box.photos if photo.thumb.name not in shown)
            box.photos = [photo for photo in box.photos if photo.thumb.name in shown]

    def clear(self) -> None:
        """Back to two empty classes; the model stays."""
        with self.lock:
            self._drop(self.boxes, self.test)
            self.boxes, self.test, self.remarks = [], [], []
            for _ in range(2):
                self.add_box()

    # ---- all at once -------------------------------------------------------------------------

    def read_zip(self, file: Path) -> None:
        """Take the images of a zip with a folder per class, in place of those that are there.

        With `train/` and `test/` (or `val/`) of that shape, the latter become the test images.

        Raises:
            DataError: the zip is refused, or holds no usable image; then nothing changes.
        """
        unpacked = self.store.unpack(file)
        try:
            self.read_folder(archive.root_of(unpacked))
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def read_folder(self, folder: Path) -> None:
        """As `read_zip`, from a folder whose files may be taken away."""
        found = scanned(folder)
        if len(found.labels) > self.settings.max_classes:
            raise DataError(
                f"{len(found.labels)} class folders were found, and no more than "
                f"{self.settings.max_classes} are allowed"
            )
        with self.lock:
            skipped = list(found.skipped)
            boxes = {
                label: ClassDraft(secrets.token_hex(8), label) for label in sorted(found.labels)
            }
            for photo, label in self._taken(found.splits.get("train", []), skipped):
                boxes[label].photos.append(photo)
            held = found.splits.get("test") or found.splits.get("val") or []
            test = self._taken_test(held, set(boxes), skipped)
            if not any(box.photos for box in boxes.values()):
                self._drop(boxes.values(), test)
                reason = f": {skipped[0].source}: {skipped[0].reason}" if skipped else ""
                raise DataError(f"no image could be used{reason}")
            self._drop(self.boxes, self.test)
            self.boxes, self.test, self.remarks = list(boxes.values()), test, skipped

    def read_test(self, file: Path) -> None:
        """Take a zip with a folder per class as test images.

        Raises:
            DataError: the zip is refused, or holds none of the classes; then nothing changes.
        """
        unpacked = self.store.unpack(file)
        try:
            found = scanned(archive.root_of(unpacked))
            splits = found.splits
            with self.lock:
                skipped = list(found.skipped)
                held = splits.get("test") or splits.get("val") or splits.get("train", [])
                names = {box.name for box in self.boxes}
                test = self._taken_test(held, names, skipped)
                if not test:
                    raise DataError(
                        "no test image could be used: its folders have to be named as the classes "
                        f"are ({', '.join(sorted(filter(None, names))) or 'none yet'})"
                    )
                self._drop([], self.test)
                self.test, self.remarks = test, skipped
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def count(self) -> int:
        """Images of all classes, without test images."""
        return sum(len(box.photos) for box in self.boxes)

    def labelled(self) -> dict[str, list[Path]]:
        """{class: its images}, ready to adapt to.

        Raises:
            DataError: fewer than two classes, or one without a name or images.
        """
        with self.lock:
            used = [box for box in self.boxes if box.photos or box.name]
            names = [box.name for box in used]
            if not self.count():
                raise DataError("there are no images yet; add some to two classes in step 1")
            if not all(names):
                raise DataError("a class with images has no name yet; name it in step 1")
            if len(set(names)) < len(names):
                doubled = next(name for name in names if names.count(name) > 1)
                raise DataError(f"two classes are called {doubled!r}; give each its own name")
            empty = [box.name for box in used if not box.photos]
            if empty:
                raise DataError(
                    f"no images yet for {', '.join(empty)}; add some in step 1, or remove the class"
                )
            if len(used) < 2:
                raise DataError("there is only one class; add images of a second one in step 1")
            return {box.name: [photo.path for photo in box.photos] for box in used}

    def _taken(self, found: Iterable[Found], skipped: list[Skipped]) -> list[tuple[Photo, str]]:
        """Verified images with their labels; the others are appended to `skipped`."""
        taken = []
        for each in found:
            try:
                taken.append((self.store.take(Path(str(each.image)), each.source), each.label))
            except ImageError as error:
                skipped.append(Skipped(each.source, str(error)))
        return taken

    def _taken_test(
        self, found: Sequence[Found], names: set[str], skipped: list[Skipped]
    ) -> list[tuple[Photo, str]]:
        strangers = sorted({each.label for each in found} - names)
        skipped += [
            Skipped(f"test images of {name}", "no class of this name") for name in strangers
        ]
        return self._taken([each for each in found if each.label in names], skipped)

    def _drop(self, boxes: Iterable[ClassDraft], test: Iterable[tuple[Photo, str]]) -> None:
        self.store.drop(photo for box in boxes for photo in box.photos)
        self.store.drop(photo for photo, _ in test)
