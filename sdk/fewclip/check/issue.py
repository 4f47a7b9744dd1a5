"""One finding about a data set."""

from __future__ import annotations

import dataclasses
from typing import Any

from fewclip.images import Image

# Kind -> what it is called, most pressing first.
KINDS = {
    "leak": "the same picture to learn from and to measure on",
    "conflict": "the same picture under two classes",
    "label": "likely a wrong label",
    "unreadable": "unreadable files",
    "duplicate": "near-duplicates within a class",
    "names": "class names that mean the same",
    "overlap": "classes that are hard to tell apart",
    "outlier": "unlike its class",
    "empty": "nothing to see",
    "dark": "too dark",
    "bright": "overexposed",
    "blurred": "blurred",
    "tiny": "tiny",
    "shape": "oddly shaped",
    "balance": "uneven classes",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Issue:
    """One finding.

    Attributes:
        kind: a key of `KINDS`.
        source: the image, as the data set names it; a class for findings about classes.
        label, split: what the data set says of it.
        score: how sure it is, 0..1.
        reason: why, for people.
        advice: what to do, for people.
        neighbours: sources of the images that it was compared with.
        action: "remove", "relabel", or "" where only a person can tell.
        new_label: what it more likely shows, for "relabel".
        image: to draw a thumbnail from; None for findings about classes.
    """

    kind: str
    source: str
    score: float
    reason: str
    advice: str
    label: str = ""
    split: str = ""
    neighbours: tuple[str, ...] = ()
    action: str = ""
    new_label: str = ""
    image: Image | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the image."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "image"]
        plain = {name: getattr(self, name) for name in names}
        return plain | {"neighbours": list(self.neighbours)}
