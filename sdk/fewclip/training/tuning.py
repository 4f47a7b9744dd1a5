"""The parts of a run on their own: tune a method as the plan says, pass images through it."""

from __future__ import annotations

from collections.abc import Sequence

from fewclip.data import Item, PixelStore
from fewclip.heads import FeatureSample
from fewclip.methods.base import Method
from fewclip.preprocess import Image
from fewclip.training.features import sample_features
from fewclip.training.loop import History, TrainingSet, train
from fewclip.training.plan import Plan
from fewclip.training.progress import Callbacks

PIXEL_BUDGET = 2 * 1024**3  # bytes of decoded training images kept in memory


def pixel_store(plan: Plan) -> PixelStore:
    """The plan's training images, decoded once where they fit into memory."""
    return PixelStore(plan.split.train, plan.backbone.preprocess, PIXEL_BUDGET)


def tune(
    plan: Plan,
    method: Method,
    store: PixelStore,
    callbacks: Callbacks,
    later: float = 0,
) -> History:
    """Train the method, or resume its training, as the plan says; `later` as `train` takes it."""
    method.setup(list(plan.phrases.values()))
    images = TrainingSet(
        store.get,
        [item.label for item in plan.split.train],
        plan.backbone.preprocess,
        plan.options["crop_area"],
        plan.options["flip"],
    )
    return train(
        method,
        images,
        epochs=plan.options["epochs"],
        seed=plan.seed,
        precision=plan.precision,
        run=plan.run,
        checkpoint=plan.checkpoint,
        progress=callbacks.progress,
        stop=callbacks.stop,
        later=later,
    )


def features_of(
    plan: Plan,
    method: Method,
    items: Sequence[Item],
    *,
    views: int = 0,
    images: Sequence[Image] | None = None,
) -> FeatureSample:
    """Some of the plan's images as the method's image tower sees them.

    Args:
        views: augmented views of each besides the plain one.
        images: those of the items, if they are already decoded.
    """
    return sample_features(
        method,
        [item.image for item in items] if images is None else images,
        [item.label for item in items],
        list(plan.phrases.values()),
        views=views,
        crop_area=plan.options["crop_area"],
        flip=plan.options["flip"],
        seed=plan.seed,
    )
