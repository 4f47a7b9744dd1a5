"""One person's classes, images and model on the server. No layout and no training here."""

from __future__ import annotations

import dataclasses
import os
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
from fewclip_app.work.review import Review
from fewclip_app.work.uploads import Photo, Store, scanned

if TYPE_CHECKING:
    from fewclip.data import Found
    from fewclip_app.work.job_queue import Job
    from fewclip_app.work.training import Model


@dataclasses.dataclass
class ClassDraft:
    """One class while images are being added to it."""

    key: str
    name: str = ""
    photos: list[Photo] = dataclasses.field(default_factory=list)
    refused: list[Skipped] = dataclasses.field(default_factory=list)


class Download:
    """Files of a model to download, while they are made and afterwards.

    Attributes:
        model: whose files they are.
        begun: when, by time.monotonic().
        job: what makes them.
        files: the zips, once they are done.
    """

    def __init__(self, model: Model | None, begun: float) -> None:
        self.model = model
        self.begun = begun
        self.job: Job
        self.files: list[Path] = []


class Workspace:
    """One person's input and results. Methods may be called from several threads.

    Attributes:
        store: their folder, deleted with the workspace.
        drafts: the classes, in the order of the page.
        test: labelled images to evaluate on, which are never trained on.
        remarks: what was not used from a zip, and why.
        model: the current model, once there is one.
        job: the current or last training.
        review: what was found in the images.
        download: the files that were requested last.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(folder, settings)
        self.lock = threading.RLock()
        self.drafts: list[ClassDraft] = []
        self.test: list[tuple[Photo, str]] = []
        self.remarks: list[Skipped] = []
        self.model: Model | None = None
        self.job: Job | None = None
        self.review = Review()
        self.download: Download | None = None
        self.clear()

    def take_model(self, model: Model) -> None:
        """Make a model the current one, and delete the previous one's files."""
        with self.lock:
            old, self.model = self.model, model
        if old is not None and old.folder is not None:
            shutil.rmtree(old.folder, ignore_errors=True)

    def delete(self) -> None:
        """Stop all jobs and delete everything."""
        if self.job is not None:
            self.job.stop()
        if self.download is not None:
            self.download.job.stop()
        self.review.stop()
        self.model = None
        shutil.rmtree(self.store.folder, ignore_errors=True)

    # ---- class by class ----------------------------------------------------------------------

    def add_draft(self, name: str = "") -> ClassDraft:
        """Add a class.

        Raises:
            DataError: there are as many as allowed.
        """
        with self.lock:
            if len(self.drafts) >= self.settings.max_classes:
                raise DataError(f"no more than {self.settings.max_classes} classes are allowed")
            draft = ClassDraft(secrets.token_hex(8), clean_label(name))
            self.drafts.append(draft)
            return draft

    def draft(self, key: str) -> ClassDraft:
        """The class of a card on the page.

        Raises:
            DataError: it has been removed.
        """
        for draft in self.drafts:
            if draft.key == key:
                return draft
        raise DataError("this class was removed; reload the page")

    def rename_draft(self, key: str, name: str) -> None:
        with self.lock:
            self.draft(key).name = clean_label(name)

    def remove_draft(self, key: str) -> None:
        with self.lock:
            draft = self.draft(key)
            self.drafts.remove(draft)
            self.store.drop(draft.photos)

    def add_photos(self, key: str, files: Iterable[tuple[Path, str]]) -> None:
        """Verify and take (uploaded file, its name for people); others go to `draft.refused`."""
        refused = []
        for path, source in files:
            own = self._own(path)
            try:
                with self.lock:  # per image, so that other changes need not wait for all of them
                    self.draft(key).photos.append(self.store.take(own, source))
            except ImageError as error:
                refused.append(Skipped(source, str(error)))
            finally:
                own.unlink(missing_ok=True)
        with self.lock:
            self.draft(key).refused = refused

    def refuse(self, key: str, sources: Sequence[str], reason: str) -> None:
        """Record images of a class that were refused without being tried."""
        with self.lock:
            self.draft(key).refused += [Skipped(source, reason) for source in sources]

    def remove_photo(self, key: str, thumb: str) -> None:
        """Remove the image with this thumbnail from a class."""
        with self.lock:
            draft = self.draft(key)
            gone = [photo for photo in draft.photos if photo.thumb.name == thumb]
            draft.photos = [photo for photo in draft.photos if photo not in gone]
            self.store.drop(gone)

    def move_photo(self, key: str, thumb: str, name: str) -> None:
        """Move the image with this thumbnail to the class called `name`.

        Raises:
            DataError: there is no such class any more.
        """
        with self.lock:
            target = next((draft for draft in self.drafts if draft.name == name), None)
            if target is None:
                raise DataError(f"there is no class {name!r} any more; leave the image where it is")
            draft = self.draft(key)
            moved = [photo for photo in draft.photos if photo.thumb.name == thumb]
            draft.photos = [photo for photo in draft.photos if photo not in moved]
            target.photos += moved

    def _own(self, path: Path) -> Path:
        """A hard link of our own to an uploaded file.

        Gradio keeps identical files from all people under one path: moving one away would take it
        from the others, and from browsers about to show it. Gradio deletes it later.
        """
        own = self.store.new_path("upload")
        os.link(path, own)
        return own

    def clear(self) -> None:
        """Back to two empty classes; the model stays."""
        with self.lock:
            self._drop(self.drafts, self.test)
            self.drafts, self.test, self.remarks = [], [], []
            for _ in range(2):
                self.add_draft()

    # ---- all at once -------------------------------------------------------------------------

    def read_zip(self, file: Path) -> None:
        """Replace the images with those of a zip with a folder per class.

        With `train/` and `test/` (or `val/`) of that shape, the latter become the test images.

        Raises:
            DataError: the zip is refused, or has no usable image; then nothing changes.
        """
        unpacked = self.store.unpack(file)
        try:
            self.read_folder(archive.root_of(unpacked))
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def read_folder(self, folder: Path) -> None:
        """Like `read_zip`, from a folder whose files may be moved away."""
        found = scanned(folder)
        if len(found.labels) > self.settings.max_classes:
            raise DataError(
                f"{len(found.labels)} class folders were found, and no more than "
                f"{self.settings.max_classes} are allowed"
            )
        with self.lock:
            skipped = list(found.skipped)
            drafts = {
                label: ClassDraft(secrets.token_hex(8), label) for label in sorted(found.labels)
            }
            for photo, label in self._taken(found.splits.get("train", []), skipped):
                drafts[label].photos.append(photo)
            held = found.splits.get("test") or found.splits.get("val") or []
            test = self._taken_test(held, set(drafts), skipped)
            if not any(draft.photos for draft in drafts.values()):
                self._drop(drafts.values(), test)
                reason = f": {skipped[0].source}: {skipped[0].reason}" if skipped else ""
                raise DataError(f"no image could be used{reason}")
            self._drop(self.drafts, self.test)
            self.drafts, self.test, self.remarks = list(drafts.values()), test, skipped

    def read_test(self, file: Path) -> None:
        """Take a zip with a folder per class as test images.

        Raises:
            DataError: the zip is refused, or has none of the classes; then nothing changes.
        """
        unpacked = self.store.unpack(file)
        try:
            found = scanned(archive.root_of(unpacked))
            splits = found.splits
            with self.lock:
                skipped = list(found.skipped)
                held = splits.get("test") or splits.get("val") or splits.get("train", [])
                names = {draft.name for draft in self.drafts}
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
        """Number of images in all classes, without test images."""
        return sum(len(draft.photos) for draft in self.drafts)

    def labelled(self) -> dict[str, list[Path]]:
        """{class: its images}, as input for `adapt`.

        Raises:
            DataError: fewer than two classes, or one without a name or images.
        """
        with self.lock:
            used = [draft for draft in self.drafts if draft.photos or draft.name]
            names = [draft.name for draft in used]
            if not self.count():
                raise DataError("there are no images yet; add some to two classes in step 1")
            if not all(names):
                raise DataError("a class with images has no name yet; name it in step 1")
            if len(set(names)) < len(names):
                doubled = next(name for name in names if names.count(name) > 1)
                raise DataError(f"two classes are called {doubled!r}; give each its own name")
            empty = [draft.name for draft in used if not draft.photos]
            if empty:
                raise DataError(
                    f"no images yet for {', '.join(empty)}; add some in step 1, or remove the class"
                )
            if len(used) < 2:
                raise DataError("there is only one class; add images of a second one in step 1")
            return {draft.name: [photo.path for photo in draft.photos] for draft in used}

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
        unknown = sorted({each.label for each in found} - names)
        skipped += [Skipped(f"test images of {name}", "no class of this name") for name in unknown]
        return self._taken([each for each in found if each.label in names], skipped)

    def _drop(self, drafts: Iterable[ClassDraft], test: Iterable[tuple[Photo, str]]) -> None:
        self.store.drop(photo for draft in drafts for photo in draft.photos)
        self.store.drop(photo for photo, _ in test)
