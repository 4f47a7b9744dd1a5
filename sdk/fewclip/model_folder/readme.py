"""A saved model's README for people, with the Hub's front matter. Text only; no torch."""

from __future__ import annotations

import json

from fewclip.contract import Card
from fewclip.report import wilson


def model_card(card: Card, *, repo: str | None = None, for_open_clip: bool = False) -> str:
    """Markdown that says what the model is, how it was made, how good it was, how to use it.

    Args:
        repo: "owner/name" where it is published, which is then where it is loaded from.
        for_open_clip: the whole tuned CLIP is beside it in open_clip's layout.
    """
    classes = ", ".join(card.classes[:50]) + (" …" if len(card.classes) > 50 else "")
    tags = ["clip", "few-shot", card.method]
    tags += ["onnx"] if card.kind == "onnx" else ["open_clip"] if for_open_clip else []
    return f"""---
library_name: fewclip
pipeline_tag: image-classification
tags: [{", ".join(tags)}]
---
# {card.name}

A CLIP image classifier with {len(card.classes)} classes, made by fewclip {card.fewclip_version}
with **{card.method}** on the backbone **{card.backbone["name"]}**.

Classes: {classes}

## How good it is
{_metrics(card)}

## How it was made
Template: `{card.template}` · seed {card.seed} · precision {card.precision} · {card.created}

```json
{json.dumps(dict(card.options), indent=2)}
```

## How to use it
{_usage(card, repo)}{_open_clip(repo) if for_open_clip else ""}
## Limits
It answers with the classes above; images unlike all of them are marked `known: false` where a
threshold was calibrated. Figures hold for images like those it was measured on: another camera or
other light may do worse, so measure again. It inherits the backbone's licence, data and biases.
"""


def _usage(card: Card, repo: str | None) -> str:
    where = f"hf://{repo}" if repo else card.name
    if card.kind == "onnx":
        return f"""```python
from fewclip.runtime import OnnxClassifier  # no torch needed

OnnxClassifier("{where}").predict(["photo.jpg"])
```

To serve it: `fewclip serve {where}`, then
`curl -F image=@photo.jpg http://127.0.0.1:3000/v1/predict`.
"""
    return f"""```python
import fewclip

clf = fewclip.load("{where}")
clf.predict(["photo.jpg"])
clf = clf.add_classes(["zebra"])  # more classes, no training
clf.export_onnx("{card.name}-onnx")  # for serving without torch
```

To serve it: `fewclip serve {card.name}-onnx`, then
`curl -F image=@photo.jpg http://127.0.0.1:3000/v1/predict`.
"""


def _open_clip(repo: str | None) -> str:
    return f"""
The tuned CLIP itself, without calibration and fewclip:

```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("hf-hub:{repo}")
```
"""


def _metrics(card: Card) -> str:
    before, after = card.metrics.get("before"), card.metrics.get("after")
    if before and after:
        images = f"{after['n']} images kept out of training"
        rows = [("zero-shot", before), ("adapted", after)]
    elif found := card.metrics.get("out_of_fold"):
        images = f"its {found['n']} training images, each answered by a model fitted without it"
        rows = [("adapted", found)]
    else:
        return "Not measured: no images were kept out of training, so scores are uncalibrated."
    calibration = card.calibration
    lines = [
        f"On {images} (95 % interval in brackets):",
        "",
        "| | accuracy | macro F1 | calibration error |",
        "|---|---|---|---|",
    ]
    for name, row in rows:
        lines.append(
            f"| {name} | {_with_interval(row['accuracy'], row['n'])} | "
            f"{_decimal(row['macro_f1'])} | {_decimal(row['ece'])} |"
        )
    if gda := card.metrics.get("gda"):
        accuracy = _with_interval(gda["accuracy"], gda["n"])
        lines.append(f"| gda, for comparison | {accuracy} | | |")
    lines += [f"\n**Warning:** {remark}." for remark in card.training.get("warnings", ())]
    lines += [
        "",
        f"Temperature {calibration.temperature:.3f}, unknown threshold "
        + _decimal(calibration.threshold)
        + f", both from {calibration.n} images.",
    ]
    return "\n".join(lines)


def _with_interval(accuracy: float, n: int) -> str:
    # A card from elsewhere may claim any number.
    low, high = wilson(min(max(accuracy, 0.0), 1.0), max(n, 1))
    return f"{accuracy:.1%} ({100 * low:.0f} to {high:.0%})"


def _decimal(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
