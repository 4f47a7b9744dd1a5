"""What is found in uploaded images: by the real check, on real images, and in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewclip.samples import digits
from fewclip_app.settings import Settings
from fewclip_app.ui import class_cards, findings
from fewclip_app.work.job_queue import JobQueue
from fewclip_app.work.review import Finding, Review, read_findings
from fewclip_app.work.uploads import Photo
from fewclip_app.work.workspace import Workspace

PATIENCE = 300.0  # seconds; two cores may be shared with other tests
EVIL = "<script>alert(1)</script>\"'&"


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    queue = JobQueue(1)
    yield queue
    queue.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two digits, ten images of each."""
    made = Workspace(tmp_path / "store", Settings())
    for draft, name in zip(made.drafts, ("three", "zero"), strict=True):
        made.rename_draft(draft.key, name)
        add(made, draft.key, [(name, i) for i in range(10)], tmp_path)
    return made


def add(workspace: Workspace, key: str, drawn: list[tuple[str, int]], folder: Path) -> None:
    files = []
    for name, index in drawn:
        path = folder / f"{name}-{index}.png"
        digits.draw(name, index).save(path)
        files.append((path, path.name))
    workspace.add_photos(key, files)


def ended(review: Review) -> Review:
    ends = time.monotonic() + PATIENCE
    while review.running and time.monotonic() < ends:
        time.sleep(0.1)
    assert review.job is not None
    assert review.job.state == "done", review.job.error
    return review


@pytest.mark.slow
def test_a_copy_and_a_wrong_label_are_found_and_moved(
    workspace: Workspace, jobs: JobQueue, tmp_path: Path
) -> None:
    three, zero = workspace.drafts
    add(workspace, zero.key, [("zero", 0)], tmp_path)
    add(workspace, three.key, [("zero", 50)], tmp_path)
    review = workspace.review
    review.begin(workspace, jobs)
    first = review.job
    review.begin(workspace, jobs)
    assert review.job is first  # the images are the same
    found = {each.kind: each for each in ended(review).open_findings(workspace)}
    assert set(found) == {"label", "duplicate"}
    label, copy = found["label"], found["duplicate"]
    assert label.photo is not None
    assert label.likelier == "zero"
    assert label.photo.source == "zero-50.png"
    assert {photo.source for photo in (copy.photo, copy.other) if photo} == {"zero-0.png"}
    drawn = class_cards.draw(workspace.drafts, review.open_findings(workspace))
    assert "Move to zero" in drawn
    assert drawn.count("class='fc-doubtful'") == 2

    workspace.move_photo(three.key, label.photo.thumb.name, "zero")
    review.keep_photo(label.photo.thumb.name)
    assert label.photo in zero.photos
    assert review.open_findings(workspace) == [copy]
    assert copy.photo is not None
    workspace.remove_photo(zero.key, copy.photo.thumb.name)
    assert review.open_findings(workspace) == []


def test_images_that_change_end_the_check(
    workspace: Workspace, jobs: JobQueue, tmp_path: Path
) -> None:
    review = workspace.review
    review.begin(workspace, jobs)
    first = review.job
    assert first is not None
    add(workspace, workspace.drafts[0].key, [("three", 30)], tmp_path)
    review.begin(workspace, jobs)
    assert first.stopping()
    workspace.clear()
    review.begin(workspace, jobs)
    assert not review.running
    assert findings.summarize(review, []) == ""


def test_findings_about_classes_without_a_name_are_passed_over(tmp_path: Path) -> None:
    photos = [Photo(tmp_path / str(i), tmp_path / f"{i}.webp", f"{i}.png") for i in range(2)]
    issue = {"neighbours": [], "new_label": "0f3a", "reason": "why"}
    report = {
        "issues": [
            {**issue, "kind": "label", "source": "check.csv row 3 (1)"},
            {**issue, "kind": "overlap", "source": "cat / 0f3a"},
            {**issue, "kind": "overlap", "source": "cat / dog"},
            {**issue, "kind": "unreadable", "source": "check.csv row 2 (0)"},
        ]
    }
    found = read_findings(report, photos, {"cat", "dog"})
    assert [(each.kind, each.photo, each.likelier) for each in found] == [
        ("label", photos[1], ""),
        ("overlap", None, ""),
    ]


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    photo = Photo(tmp_path / "a", tmp_path / "a.webp", EVIL)
    found = [Finding(kind, EVIL, photo, photo, EVIL) for kind in ("label", "conflict", "other")]
    assert EVIL not in findings.draw(found, EVIL)
    assert "<script" not in findings.draw(found, EVIL)
    assert "<script" not in findings.summarize(Review(), [Finding("names", EVIL)])
