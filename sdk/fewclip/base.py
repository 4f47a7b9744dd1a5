"""What every classifier does, trained or exported: answer, be evaluated, edit its class set.

`Classifier` (torch) and `OnnxClassifier` (ONNX Runtime) add how an image becomes model outputs, and
how a class set gets its embeddings. No torch here; opening and writing folders is elsewhere.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fewclip import class_set, conformal, decide
from fewclip.class_set import Phrases, read_labels
from fewclip.contract import Card
from fewclip.errors import ClassNameError, OptionError
from fewclip.explain import Explanation, Question, occlusion
from fewclip.explain.explanation import Heat, over_photo
from fewclip.ood import NEAREST_PARTS
from fewclip.preprocess import WORKERS, Image, Images, Inputs, batches, listed, load_image, to_input

if TYPE_CHECKING:
    from fewclip.report import Report
    from fewclip.suggest import Suggestion

Floats = npt.NDArray[np.float32]


class BaseClassifier(abc.ABC):
    """Images -> answers over a class set that can be edited without training.

    A classifier never changes: `add_classes` and its like return a new one that shares the weights.

    Attributes:
        card: its contract; `card.classes` are the labels, in the order of every class axis.
        batch_size: images per forward pass.
        workers: threads that decode images.
    """

    batch_size: int
    workers: int = WORKERS
    card: Card

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels, in the order of every class axis."""
        return self.card.classes

    # ---- answers -----------------------------------------------------------------------------

    def predict(
        self,
        images: Images,
        top_k: int = 5,
        coverage: float | None = None,
        *,
        class_wise: bool = False,
    ) -> list[decide.Prediction]:
        """One Prediction per image, in order.

        Args:
            images: paths, bytes, PIL images or RGB uint8 arrays (H, W, 3), or a single one; an
                RGB uint8 array (N, H, W, 3); or preprocessed float32 (N, 3, size, size).
            top_k: how many classes each Prediction names.
            coverage: with 0.9, `prediction_set` holds the truth for 90 % of images like those
                kept out of training; None for no sets.
            class_wise: hold `coverage` for the images of each class, not only for all together.

        Raises:
            ImageError: an image cannot be read, or is not an image.
            OptionError: `top_k` is not a whole number >= 1, or `coverage` is not between 0 and 1.
            CoverageError: too few images were kept out, or the class set has changed since.
        """
        decide.check_top_k(top_k)
        if coverage is not None:
            self.check_coverage(coverage, class_wise=class_wise)
        return self.answer(self.model_outputs(images), top_k, coverage, class_wise=class_wise)

    def check_coverage(self, coverage: float, *, class_wise: bool = False) -> None:
        """Raise the error that `predict` would if this model cannot promise `coverage`."""
        conformal.check_coverage(
            self.card.conformal, self.card.head, coverage, class_wise=class_wise
        )

    def answer(
        self,
        outputs: decide.ModelOutputs,
        top_k: int = 5,
        coverage: float | None = None,
        *,
        class_wise: bool = False,
    ) -> list[decide.Prediction]:
        """Model outputs -> one Prediction per row, as `predict` does."""
        itm, cat, ood_score, named_bound = outputs
        return decide.decide(
            itm,
            cat,
            self.classes,
            self.card.head,
            self.card.calibration,
            top_k,
            ood_score,
            named_bound,
            coverage=coverage,
            class_wise=class_wise,
            conformal_scores=self.card.conformal,
        )

    def predict_proba(self, images: Images) -> npt.NDArray[np.float64]:
        """(N, C) float64 calibrated probabilities; rows sum to 1. `images` as for `predict`."""
        itm, cat = self.logits(images)
        return decide.probabilities(itm, cat, self.card.head, self.card.temperature)

    def logits(self, images: Images) -> tuple[Floats, Floats | None]:
        """ITM logits (N, C) and, with DePT, CAT logits (N, C_trained), float32, not calibrated."""
        outputs = self.model_outputs(images)
        return outputs.logits_itm, outputs.logits_cat

    @abc.abstractmethod
    def model_outputs(self, images: Images) -> decide.ModelOutputs:
        """All that `decide` needs to answer for N images, given as for `predict`."""

    @abc.abstractmethod
    def embed(self, images: Images) -> Floats:
        """(N, D) float32 L2-normalised image features. `images` as for `predict`."""

    def explain(
        self, image: Image, label: str | None = None, contrast: str | None = None
    ) -> Explanation:
        """Which parts of an image spoke for a class.

        By attention relevance if the image tower's blocks are accessible; by occlusion for other
        backbones and exported models, which takes 65 forward passes.

        Args:
            image: one image, as for `predict`.
            label: the class to explain; one that is not among the classes is added by name for
                this call. None for the most probable one.
            contrast: explain why `label` rather than this class; given like `label`.

        Raises:
            ImageError: the image cannot be read, or is not an image.
            ClassNameError: `label` or `contrast` cannot be a class name, or both are the same.
        """
        photo = load_image(image)
        inputs = to_input(photo, self.card.preprocessing)
        named = None if label is None else read_labels([label])[0]
        other = None if contrast is None else read_labels([contrast])[0]
        model = self._knowing([name for name in (named, other) if name is not None])
        proba = model.predict_proba(inputs[None])[0]
        chosen = named or model.classes[int(proba.argmax())]
        if chosen == other:
            raise ClassNameError(
                f"{chosen!r} cannot be contrasted with itself; name another class in contrast"
            )
        at = model.classes.index
        question = Question(at(chosen), None if other is None else at(other))
        heat, method = model._heat(inputs, question)
        return Explanation(
            heatmap=over_photo(heat, photo, self.card.preprocessing),
            label=chosen,
            score=float(proba[question.label]),
            contrast=other,
            method=method,
            image=photo,
        )

    def suggest(self, images: Images, n: int = 20) -> list[Suggestion]:
        """Which unlabelled images to label next, the most useful first; never near-duplicates.

        They are typical of the given images, and unlike the training images if the model keeps
        features of those.

        Args:
            images: unlabelled ones, as for `predict`, but not preprocessed.
            n: how many at most.

        Raises:
            ImageError: an image cannot be read, or is not an image.
            OptionError: `n` is not a whole number >= 1.
        """
        from fewclip.suggest import Candidates, grey_copies, suggest

        images = listed(images)
        size = self.card.preprocessing.size
        none = np.zeros((0, 3, size, size), np.float32)
        seen = [
            (self._outputs_and_parts(inputs)[1], grey_copies(inputs))
            for inputs in (self._batches(images) if images else (none,))
        ]
        parts, looks = zip(*seen, strict=True)
        known = self._training_parts()
        kept = len(known) or NEAREST_PARTS  # what the model keeps of training images
        features = np.concatenate([np.concatenate(part[:kept], axis=1) for part in parts])
        labelled = np.concatenate(known, axis=1) if known else features[:0]
        copies = np.concatenate(looks)
        return suggest(Candidates(images, features, copies, labelled), n)

    @abc.abstractmethod
    def _outputs_and_parts(
        self, images: Images
    ) -> tuple[decide.ModelOutputs, tuple[npt.NDArray[np.float64], ...]]:
        """`model_outputs` of N images, and their `ood.ood_parts`, (N, L) each."""

    @abc.abstractmethod
    def _training_parts(self) -> tuple[npt.NDArray[np.float16], ...]:
        """`ood.ood_parts` of the training images, as many as the OOD score keeps; or none."""

    def _knowing(self, names: Sequence[str]) -> Self:
        """This model plus those of the names that it does not know."""
        new = [name for name in dict.fromkeys(names) if name not in self.classes]
        return self.add_classes(new) if new else self

    def _heat(self, inputs: Inputs, question: Question) -> tuple[Heat, str]:
        """(rows, columns): what each part of (3, size, size) adds to the answer; and the method.

        By occlusion, which needs only answers; a subclass that has more to go by overrides it.
        """

        def answer(images: Inputs) -> npt.NDArray[np.float64]:
            itm, cat = self.logits(images)
            return decide.log_probabilities(itm, cat, self.card.head, self.card.temperature)

        return occlusion(answer, inputs, question), "occlusion"

    def evaluate(self, data: Any) -> Report:
        """Accuracy, macro F1, per class, confusion and calibration on labelled images.

        Args:
            data: in any of the forms that `adapt` takes; its test/ if it has one. Images of classes
                that this classifier does not know are left out and reported.

        Raises:
            ClassNameError: none of the labels is among the classes.
            DataError: there is nothing to evaluate on.
        """
        from fewclip.data import read_labelled
        from fewclip.report import Report

        items, skipped = read_labelled(data, self.classes)
        return Report.from_predictions(
            self.predict_proba([item.image for item in items]),
            np.array([item.label for item in items], dtype=np.int64),
            self.classes,
            skipped=[{"source": each.source, "reason": each.reason} for each in skipped],
        )

    def _batches(self, images: Images) -> Iterator[Inputs]:
        """(n, 3, size, size) float32 with n up to `batch_size`."""
        spec = self.card.preprocessing
        return batches(images, spec, size=self.batch_size, workers=self.workers)

    # ---- the class set -----------------------------------------------------------------------

    def with_classes(self, names: Phrases) -> Self:
        """The same model over exactly these classes, in this order; no training.

        Args:
            names: labels, or {label: phrase}. Classes seen in training keep what they learned;
                others are known by their names alone.

        Raises:
            ClassNameError: no name, or one that is empty, too long or given twice.
        """
        return self._with_card(class_set.with_classes(self.card, names))

    def add_classes(self, names: Phrases) -> Self:
        """The same model that also knows these classes, by their names; no training."""
        return self._with_card(class_set.add_classes(self.card, names))

    def remove_classes(self, names: str | Sequence[str]) -> Self:
        """The same model without these classes."""
        return self._with_card(class_set.remove_classes(self.card, names))

    def rename_classes(self, names: Mapping[str, str]) -> Self:
        """The same model answering with other labels: {old: new}; phrases stay as they are."""
        return self._with_card(class_set.rename_classes(self.card, names))

    def set_unknown_threshold(self, threshold: float | None) -> Self:
        """The same model with another threshold for `known`; None accepts everything.

        Raises:
            OptionError: it is not a finite number.
        """
        if threshold is not None:
            number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
            if not number or not math.isfinite(threshold):
                raise OptionError(f"threshold must be a finite number or None, got {threshold!r}")
            threshold = float(threshold)
        calibration = dataclasses.replace(self.card.calibration, threshold=threshold)
        return self._with_card(dataclasses.replace(self.card, calibration=calibration))

    # ---- sharing -----------------------------------------------------------------------------

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Publish the model on the Hugging Face Hub.

        "hf://owner/name" is then its address: for `fewclip.load`, or for `OnnxClassifier` if it is
        an exported model. If the method tunes CLIP's towers and nothing else (fine-tune,
        skip-tuning), the repository also holds the tuned CLIP in open_clip's layout.

        Args:
            repo: "owner/name"; created if missing.
            private: whether a repository created now is private.
            token: for the Hub; None for the one from `hf auth login` or HF_TOKEN.

        Returns:
            The commit's address.

        Raises:
            HubError: the Hub refuses, or is unreachable.
            OptionError: the class set of an exported model was edited since it was opened.
        """
        from fewclip.hub import push

        with tempfile.TemporaryDirectory(prefix="fewclip-push-") as scratch:
            named = Path(scratch) / (Path(repo).name or "model")
            folder, beside = self._to_publish(named)
            return push(folder, repo, private=private, token=token, beside=beside)

    @abc.abstractmethod
    def _to_publish(self, scratch: Path) -> tuple[Path, Mapping[str, Path]]:
        """The model's folder, and more files to publish beside it, {name: file}.

        Args:
            scratch: a folder that does not exist yet, for a model that has none of its own.
        """

    @abc.abstractmethod
    def _with_card(self, card: Card) -> Self:
        """The same model under another card: other classes, phrases or calibration."""
