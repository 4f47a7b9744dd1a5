"""The model of a workspace: trained or loaded from a zip, and how good it is.

It calls the SDK and knows nothing about the page. torch is imported where it is needed.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewclip.base import BaseClassifier
from fewclip.contract import Card
from fewclip.data import Skipped
from fewclip.errors import ArtifactError, BackboneError, ClassNameError, FewclipError
from fewclip_app.work import archive
from fewclip_app.work.evaluation import Evaluation, measure, unseen
from fewclip_app.work.stages import Stages

if TYPE_CHECKING:
    from fewclip import Classifier
    from fewclip_app.work.job_queue import Job
    from fewclip_app.work.uploads import Photo
    from fewclip_app.work.workspace import Workspace


@dataclasses.dataclass
class Model:
    """A classifier and the classes that were typed in.

    Attributes:
        base: a Classifier or an OnnxClassifier, without the typed classes.
        evaluation: None if no images were left to evaluate on.
        left_out: images that were not used, and why.
        loaded: whether it was loaded from a zip.
        folder: files that it needs, deleted with it.
        extras: typed classes.
    """

    base: BaseClassifier
    evaluation: Evaluation | None = None
    left_out: Sequence[Skipped] = ()
    loaded: bool = False
    folder: Path | None = None
    extras: tuple[str, ...] = ()

    @property
    def card(self) -> Card:
        return self.base.card

    @functools.cached_property
    def classifier(self) -> BaseClassifier:
        """The classifier including the typed classes."""
        return self.base.add_classes(list(self.extras)) if self.extras else self.base

    def with_extras(self, names: Sequence[str]) -> Model:
        """The same model with exactly these classes besides its own; no training.

        Raises:
            ClassNameError: a name that cannot be used.
        """
        new = tuple(dict.fromkeys(name for name in names if name not in self.base.classes))
        if new == self.extras:
            return self
        model = dataclasses.replace(self, extras=new)
        _ = model.classifier  # a name that cannot be encoded is refused now
        return model


def train(workspace: Workspace, job: Job, **choices: Any) -> None:
    """Adapt to the workspace's images, evaluate, and make the result the workspace's model.

    Args:
        choices: method, backbone, shots, epochs and options of `fewclip.adapt`.

    Raises:
        StoppedError: on request.
        FewclipError: the input is at fault.
    """
    check_backbone(workspace, choices["backbone"])
    # Images removed from the page meanwhile stay available to this training and its model.
    folder = workspace.store.new_path("model")
    folder.mkdir()
    try:
        workspace.take_model(_trained(workspace, folder, job, choices))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _trained(workspace: Workspace, folder: Path, job: Job, choices: Mapping[str, Any]) -> Model:
    job.begin("Loading PyTorch and the backbone")
    from fewclip import classifier
    from fewclip.selection.auto import choose_and_execute, default_budget
    from fewclip.training import AdaptConfig, make_plan
    from fewclip.training.progress import Callbacks

    stages = Stages(job)

    with workspace.lock:
        workspace.labelled()  # raises, saying what is missing
        kept = {
            draft.name: [workspace.store.keep(photo, folder) for photo in draft.photos]
            for draft in workspace.drafts
            if draft.photos
        }
        test = [(workspace.store.keep(photo, folder), label) for photo, label in workspace.test]
    people = _Words(kept)
    try:
        plan = make_plan(
            {label: [photo.path for photo in photos] for label, photos in kept.items()},
            AdaptConfig.of(device=workspace.settings.device, **choices),
            report_progress=stages.report,
        )
    except FewclipError as error:
        raise type(error)(people.read(str(error))) from error
    skipped = [Skipped(people.read(s.source), people.read(s.reason)) for s in plan.split.skipped]
    plan = dataclasses.replace(plan, split=dataclasses.replace(plan.split, skipped=skipped))
    photos = {str(photo.path): photo for photos in kept.values() for photo in photos}
    held_out = [(photos[str(i.image)], plan.split.classes[i.label]) for i in plan.split.val]
    evaluated_on, repeated = unseen(test, plan.split) if test else (held_out, [])
    before = None
    if evaluated_on:
        untrained = classifier.zero_shot_on(plan.backbone, plan.phrases, plan.template)
        before = measure(untrained, evaluated_on, job, "Measuring CLIP before the training")[0]
    job.begin("Training")
    if plan.automatic:
        stages.choose_within(plan.budget or default_budget(len(plan.split.train)))
    tuned = _without_places(
        choose_and_execute(
            plan,
            Callbacks(
                progress=job.report_progress, stop=job.stopping, report_progress=stages.report
            ),
        )
    )
    job.begin("Measuring the result", within=0)
    evaluation = None
    if before is not None:
        after, mistakes = measure(tuned, evaluated_on, job, "Measuring the result")
        evaluation = Evaluation(before=before, after=after, own=bool(test), mistakes=mistakes)
    return Model(tuned, evaluation, (*skipped, *repeated), folder=folder)


def load(workspace: Workspace, file: Path) -> None:
    """Make a saved or exported model, as a zip, the workspace's model.

    Raises:
        FewclipError: the zip is refused, or contains no model that can be opened here.
    """
    from fewclip import artifact

    unpacked = workspace.store.unpack(file)
    try:
        folder = archive.root_of(unpacked)
        if not (folder / "card.json").is_file():
            raise ArtifactError(
                "this zip holds no fewclip model (no card.json in it); choose one that was "
                "downloaded from step 5, or zip a folder made by 'fewclip adapt' or 'export'"
            )
        if artifact.read_card(folder).kind == "onnx":
            from fewclip.runtime import OnnxClassifier
            from fewclip.runtime.probe import probe

            probe(folder)  # in another process, in case it crashes
            # Its sessions may go on reading the folder.
            workspace.take_model(Model(OnnxClassifier(folder), loaded=True, folder=unpacked))
            return
        import fewclip

        check_backbone(workspace, str(artifact.read_card(folder).backbone["name"]))
        # Whoever runs the page has allowed the backbone, including its download.
        device = workspace.settings.device
        found = fewclip.load(folder, device=device, allow_download=True)
    except Exception as error:
        shutil.rmtree(unpacked, ignore_errors=True)
        # Names as in the zip: where it was unpacked is not to be shown.
        error.args = tuple(str(each).replace(f"{unpacked}{os.sep}", "") for each in error.args)
        raise
    shutil.rmtree(unpacked)
    workspace.take_model(Model(found, loaded=True))


_EXPORTING = threading.Lock()  # an export needs the memory of several models


def save(
    workspace: Workspace, name: str, report_progress: Callable[[str, float], None] | None = None
) -> list[Path]:
    """Zips of the saved model and of the exported one, typed classes included.

    An exported model that was loaded can only be given back as it is.

    Args:
        report_progress: called with what is being done and the share of the work that is done;
            an exception from it ends the work.

    Raises:
        FewclipError: there is no model, or the export does not answer as the model does.
    """
    from fewclip import Classifier

    model = workspace.model
    if model is None:
        raise ArtifactError("there is no model to download yet; train one in step 2")
    if model.card.kind == "onnx":
        raise ArtifactError(
            "this model was loaded from an ONNX zip and is that zip already; "
            "load the saved model instead to export it again"
        )
    report = report_progress or (lambda stage, share: None)
    classifier = model.classifier
    assert isinstance(classifier, Classifier)  # the other kind was refused above
    folder = workspace.store.new_path("download")
    folder.mkdir()
    targets = [folder / name, folder / f"{name}-onnx"]
    try:
        with _EXPORTING:
            report("Saving the model", 0.0)
            classifier.save(targets[0])
            report("Exporting it to ONNX", 0.1)
            shares = iter((0.15, 0.4))  # writing the graphs, then the comparison, the longest part
            classifier.export_onnx(
                targets[1],
                report_progress=lambda text: report(
                    f"Exporting it to ONNX: {text}", next(shares, 0.4)
                ),
            )
        for i, each in enumerate(targets):
            report(f"Packing {each.name}.zip", 0.85 + 0.1 * i)
            archive.pack(each, each.with_suffix(".zip"))
            shutil.rmtree(each)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [each.with_suffix(".zip") for each in targets]


def check_backbone(workspace: Workspace, name: str) -> None:
    """Refuse backbones that whoever runs the page has not allowed: downloads and server folders.

    Raises:
        BackboneError: it is not allowed.
    """
    allowed = workspace.settings.backbones
    if name not in allowed:
        raise BackboneError(
            f"backbone {name!r} is not offered by this page; choose one of {', '.join(allowed)}"
        )


def read_names(text: str) -> list[str]:
    """'zebra, a red bus' -> names.

    Raises:
        ClassNameError: one is much too long to be a name.
    """
    names = [
        " ".join(part.split()) for part in text.replace("\n", ",").replace(";", ",").split(",")
    ]
    for name in names:
        if len(name) > 200:
            raise ClassNameError(f"{name[:40]!r}... is too long for a class name; shorten it")
    return list(dict.fromkeys(name for name in names if name))


def _without_places(tuned: Classifier) -> Classifier:
    """The same classifier, with no paths of this server in its card."""
    same = copy.copy(tuned)
    data = {k: v for k, v in tuned.card.data.items() if k != "validation_files"}
    same.card = dataclasses.replace(tuned.card, data=data)
    return same


class _Words:
    """Replaces the SDK's name for an image (class, number, server path) with its file name."""

    def __init__(self, photos: Mapping[str, Sequence[Photo]]) -> None:
        self._names = {
            f"{label}[{i}] ({photo.path})": photo.source
            for label, own in photos.items()
            for i, photo in enumerate(own)
        }

    def read(self, text: str) -> str:
        for shown, name in self._names.items():
            text = text.replace(shown, name)
        return text
