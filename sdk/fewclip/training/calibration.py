"""Temperature, 'unknown' threshold, prediction sets and figures of a model just adapted."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import torch

from fewclip import conformal, decide
from fewclip.classifier import Classifier
from fewclip.heads import FeatureSample, FoldOutputs
from fewclip.report import Report
from fewclip.training.references import HEAD, References, Right


def measure(zero_shot: Classifier, held: FeatureSample) -> Report:
    """Evaluate zero-shot on images whose features the frozen backbone has already computed."""
    proba = decide.probabilities(held.logits_itm, None, zero_shot.card.head)
    return Report.from_predictions(proba, held.labels, zero_shot.classes)


def figures(report: Report) -> dict[str, float | int]:
    return {
        "accuracy": report.accuracy,
        "macro_f1": report.macro_f1,
        "ece": report.ece,
        "n": report.n,
    }


def calibrated(
    clf: Classifier,
    before: Report | None,
    held: FeatureSample,
    unseen: FoldOutputs | None,
    references: References | None,
) -> Classifier:
    """Fit temperature and threshold on images that the model was not fitted on.

    Those are the training images, out of fold, for a head, and for what `method="auto"` chose
    without validation images; the validation images for every other method. The latter also give
    the figures before and after.

    Args:
        before: zero-shot on the validation images; None without any.
        held: validation images on the method's image tower.
        unseen: outputs out of fold, which the temperature is fitted on; None for validation images.
        references: baselines measured on the same images; a model that one beats gives a warning.
    """
    card, ood = clf.card, clf.ood_score
    assert ood is not None
    outputs, truth = outputs_for(clf, held), held.labels
    assert outputs.ood_score is not None
    # `ood.own` is of images that the tower was tuned on, unless outputs out of fold replaced them.
    seen = clf.method.trains_images and (unseen is None or len(truth) > 0)
    own = [outputs.ood_score] if seen else [ood.own, outputs.ood_score]
    fitted_on, labels = (outputs, truth) if unseen is None else (unseen, unseen.labels)
    itm, cat = fitted_on.logits_itm, fitted_on.logits_cat
    calibration = decide.fit_calibration(itm, cat, labels, card.head, np.concatenate(own))
    metrics = dict(card.metrics)
    if unseen is not None and len(labels):
        proba = decide.probabilities(itm, cat, card.head, calibration.temperature)
        metrics["out_of_fold"] = figures(Report.from_predictions(proba, labels, clf.classes))
    remarks: list[str] = []
    if before is not None:
        proba = decide.probabilities(
            outputs.logits_itm, outputs.logits_cat, card.head, calibration.temperature
        )
        after = Report.from_predictions(proba, truth, clf.classes)
        metrics |= {"before": figures(before), "after": figures(after)}
        if references is not None:
            metrics[HEAD] = {"accuracy": float(references.kept_out.mean()), "n": len(truth)}
        remarks = _remarks(card.method, before, after, proba.argmax(1) == truth, references)
    for remark in remarks:
        warnings.warn(remark, stacklevel=5)  # the caller of `adapt`
    # Before the temperature, which may have been fitted on these very images: see `conformal`.
    plain = decide.probabilities(outputs.logits_itm, outputs.logits_cat, card.head)
    kind = "split"
    if not len(truth) and unseen is not None and len(labels):
        plain, truth, kind = decide.probabilities(itm, cat, card.head), labels, "cross"
    card = dataclasses.replace(
        card,
        calibration=calibration,
        metrics=metrics,
        training={**card.training, "warnings": remarks} if remarks else card.training,
        conformal=conformal.fit(plain, truth, len(clf.classes), kind=kind, seed=card.seed),
    )
    return Classifier(clf.method, card, ood_score=ood, validation=clf.validation)


def _remarks(
    method: str, before: Report, after: Report, right: Right, references: References | None
) -> list[str]:
    """Warnings about a method that something simpler beats on the validation images.

    Args:
        right: (m,) which of these it answers right.
    """
    remarks = []
    if after.accuracy < before.accuracy:
        remarks.append(
            f"{method} made things worse on the {len(right)} images kept out of training: "
            f"{before.accuracy:.1%} before, {after.accuracy:.1%} after; try method 'auto', "
            "more images, or keep zero-shot"
        )
    if references is not None and (remark := references.warning(method, right)):
        remarks.append(remark)
    return remarks


def outputs_for(clf: Classifier, sample: FeatureSample) -> decide.ModelOutputs:
    """Outputs for the plain views, in batches as large as `Classifier`'s own."""
    device, parts = clf.backbone.device, []
    for first in range(0, max(len(sample.labels), 1), clf.batch_size):
        rows = slice(first, first + clf.batch_size)
        features = torch.from_numpy(sample.features[rows]).to(device)
        intermediate = sample.intermediate
        below = None if intermediate is None else torch.from_numpy(intermediate[rows]).to(device)
        parts.append(clf.outputs_of(features, below))
    return decide.ModelOutputs.join(parts)
