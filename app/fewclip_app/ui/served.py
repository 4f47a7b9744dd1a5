"""The classify step alone, shown by the service over the models that it serves. No torch.

import fewclip_app
from fewclip.runtime import OnnxClassifier

blocks = fewclip_app.classify_ui(OnnxClassifier("pets-onnx"))
app = gr.mount_gradio_app(app, blocks, path="/ui", **fewclip_app.mount_options())
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from fewclip.base import BaseClassifier
from fewclip.images import MAX_PIXELS
from fewclip_app.ui.events import EVENT
from fewclip_app.ui.steps.step_classify import NO_MODEL, panel

_VISITORS = 10_000  # how many visitors' choices of a model are remembered

Served = BaseClassifier | Mapping[str, BaseClassifier]


def classify_ui(
    served: Served | Callable[[], Served], *, max_pixels: int = MAX_PIXELS
) -> gr.Blocks:
    """The classify step alone: what `fewclip serve DIR --ui` mounts.

    Args:
        served: an OnnxClassifier or a Classifier, or {name: classifier} to choose from, or a
            function without arguments that returns the current ones (a service may swap models).
        max_pixels: limit for one image.
    """

    def current() -> Mapping[str, BaseClassifier]:
        found = served() if callable(served) else served
        return {found.card.name: found} if isinstance(found, BaseClassifier) else found

    chosen = _Chosen(current)

    @functools.lru_cache(maxsize=16)
    def extended(base: BaseClassifier, names: tuple[str, ...]) -> BaseClassifier:
        return base.add_classes(list(names)) if names else base

    def choose(names: Sequence[str], request: gr.Request) -> BaseClassifier | None:
        base = chosen.classifier(request)
        if base is None:
            return None
        return extended(base, tuple(name for name in names if name not in base.classes))

    models = current()
    several = len(models) > 1
    title = "fewclip" if several else next(iter(models))
    with gr.Blocks(
        title=f"{title}: classify", analytics_enabled=False, delete_cache=(600, 3600)
    ) as blocks:
        head = gr.HTML(_head(title, next(iter(models.values()))))
        model = gr.Radio(list(models), value=next(iter(models)), label="Model", visible=several)
        with gr.Column(elem_classes="fc-step"):
            classify = panel(choose, max_pixels=max_pixels)

        def on_load(request: gr.Request) -> tuple[Any, str]:
            names, name = list(current()), chosen.name(request)
            return gr.update(choices=names, value=name, visible=len(names) > 1), on_model(
                name, request
            )

        def on_model(name: str, request: gr.Request) -> str:
            chosen.choose(name, request)
            base = chosen.classifier(request)
            return NO_MODEL if base is None else _head(chosen.name(request), base)

        quiet = {**EVENT, "show_progress": "hidden"}
        if several:  # the served models may have changed since this page was built
            blocks.load(on_load, None, [model, head], **quiet)
        model.input(on_model, model, head, **quiet).then(
            classify.show, [classify.photos, classify.names], classify.answers, **quiet
        )
    return blocks  # type: ignore[no-any-return]


class _Chosen:
    """Which of the served models each visitor uses; the first one until they choose."""

    def __init__(self, current: Callable[[], Mapping[str, BaseClassifier]]) -> None:
        self._current = current
        self._names: dict[str, str] = {}  # visitor -> model, the latest last

    def choose(self, name: str, request: gr.Request) -> None:
        visitor = str(request.session_hash)
        self._names.pop(visitor, None)
        self._names[visitor] = name
        for oldest in list(self._names)[:-_VISITORS]:
            self._names.pop(oldest, None)

    def name(self, request: gr.Request) -> str:
        """The chosen model while it is served; "" if there is none at all."""
        models = self._current()
        name = self._names.get(str(request.session_hash), "")
        return name if name in models else next(iter(models), "")

    def classifier(self, request: gr.Request) -> BaseClassifier | None:
        return self._current().get(self.name(request))


def _head(title: str, classifier: BaseClassifier) -> str:
    classes = classifier.classes
    known = ", ".join(classes[:12]) + (" ..." if len(classes) > 12 else "")
    return (
        f"<div class='fc-head'><h1>{escape(title)}</h1>"
        f"<p>Knows {len(classes)} classes: {escape(known)}</p></div>"
    )
