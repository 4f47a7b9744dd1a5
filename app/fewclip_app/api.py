"""The page for programs: the five endpoints of gradio_client. Each client has its own session.

from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
client.predict(api_name="/example")
client.predict(api_name="/adapt")
client.predict(handle_file("a.jpg"), api_name="/classify")
client.predict("zebra", api_name="/add_class")
model, onnx = client.predict(api_name="/download")
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from fewclip.decide import Prediction
from fewclip.errors import DataError
from fewclip_app.ui.events import on_error, uploaded
from fewclip_app.ui.steps import step_adapt, step_download, step_images
from fewclip_app.ui.steps.step_classify import answer
from fewclip_app.work import archive, training
from fewclip_app.work.evaluation import TOP
from fewclip_app.work.job_queue import Job, user_message
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import Workspace


def build(sessions: Sessions) -> None:
    """Add the endpoints to the current Blocks."""

    @on_error
    def example(request: gr.Request) -> dict[str, Any]:
        """Replace this session's images with the bundled example; returns {"classes", "images"}."""
        workspace = sessions.of(request)
        step_images.load_example(workspace)
        return _counted(workspace)

    async def adapt(
        request: gr.Request,
        images: Any = None,
        method: str = step_adapt.DEFAULT_METHOD,
        backbone: str = "",
        shots: int = 16,
        epochs: int = 0,
        gentle: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """Train on this session's images, or on those of a zip with a folder per class.

        Yields {"state", "stage", "epoch", "epochs", "loss", "seconds_left", "ahead"} as it goes on,
        and at the end the same with {"classes", "accuracy", "before", "interval", "n"}.
        """
        try:
            workspace = sessions.of(request)
            if images is not None:
                archive.consume(_uploaded(images), workspace.read_zip)
            job = step_adapt.begin(
                workspace,
                sessions.jobs,
                method=method,
                backbone=backbone or sessions.settings.backbones[0],
                shots=shots,
                epochs=epochs,
                gentle=gentle,
            )
        except Exception as error:
            raise gr.Error(user_message(error), print_exception=False) from error
        try:
            shown = None
            while not job.finished:
                state = _state(job, sessions)
                if state != shown:
                    yield state
                shown = state
                await asyncio.sleep(step_adapt.POLL_SECONDS)
        finally:
            job.stop()  # the client has gone; no effect on a finished job
        if job.state != "done":
            raise gr.Error(job.error or "stopped", print_exception=False)
        yield _state(job, sessions) | _result(workspace)  # a quick one may end between two polls

    @on_error
    def classify(request: gr.Request, images: Any, classes: Any = None) -> Any:
        """{"label", "score", "known", "top"} for an image, or a list of them for a list of images.

        `classes` are further class names for this session, as with add_class.
        """
        workspace = sessions.of(request)
        if classes:
            _extend(workspace, classes)
        many = isinstance(images, list)
        paths = [_uploaded(each) for each in (images if many else [images])]
        pairs = answer(
            _model(workspace).classifier,
            [(str(path), path.name) for path in paths],
            sessions.settings.max_pixels,
            TOP,
        )
        answers = [a.to_dict() if isinstance(a, Prediction) else {"error": a} for _, a in pairs]
        if not many and "error" in answers[0]:
            raise DataError(str(answers[0]["error"]))
        return answers if many else answers[0]

    @on_error
    def add_class(request: gr.Request, name: Any) -> list[str]:
        """Add a class (or a list of them) to this session's model by name; no training."""
        workspace = sessions.of(request)
        _extend(workspace, name)
        return list(_model(workspace).classifier.classes)

    @on_error
    def download(
        request: gr.Request, name: str = step_download.NAME
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Make zips of the saved model and of the exported ONNX folder."""
        saved, exported = training.save(sessions.of(request), step_download.slug(name))
        return _file(saved), _file(exported)

    endpoint(example, api_name="example")
    endpoint(adapt, api_name="adapt", concurrency_limit=None)
    endpoint(classify, api_name="classify", concurrency_limit=2, concurrency_id="classify")
    endpoint(add_class, api_name="add_class")
    endpoint(download, api_name="download", concurrency_limit=1, concurrency_id="export")


def _model(workspace: Workspace) -> training.Model:
    if workspace.model is None:
        raise DataError("there is no model in this session yet; call /adapt first")
    return workspace.model


def _extend(workspace: Workspace, names: Any) -> None:
    text = ",".join(map(str, names)) if isinstance(names, list) else str(names)
    with workspace.lock:
        current = _model(workspace)
        workspace.model = current.with_extras([*current.extras, *training.read_names(text)])


def _uploaded(given: Any) -> Path:
    """The file behind `handle_file(...)`: uploaded by the client, never one of the server's own."""
    if isinstance(given, dict):
        given = given.get("image") or given  # an entry of a gallery
        if isinstance(given, dict):
            with contextlib.suppress(DataError):
                return uploaded(given)
    raise DataError("give each file as gradio_client.handle_file('photo.jpg')")


def _file(path: Path) -> dict[str, Any]:
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def _counted(workspace: Workspace) -> dict[str, Any]:
    return {"classes": {draft.name: len(draft.photos) for draft in workspace.drafts}}


def _state(job: Job, sessions: Sessions) -> dict[str, Any]:
    at = job.progress
    return {
        "state": job.state,
        "ahead": sessions.jobs.ahead(job),
        "stage": job.stage,
        "epoch": at.epoch if at else 0,
        "epochs": at.epochs if at else 0,
        "loss": at.loss if at else None,
        "seconds_left": at.seconds_left if at else None,
    }


def _result(workspace: Workspace) -> dict[str, Any]:
    made = _model(workspace)
    result: dict[str, Any] = {"classes": list(made.base.classes)}
    if made.evaluation is not None:
        after = made.evaluation.after
        result |= {
            "before": made.evaluation.before.accuracy,
            "accuracy": after.accuracy,
            "interval": list(after.accuracy_interval()),
            "n": after.n,
        }
    return result
