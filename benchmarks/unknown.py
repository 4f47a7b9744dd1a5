"""How well 'none of these' works: own images against others. Prints a Markdown table.

    python -m benchmarks.unknown [DATA [METHOD ...]]

DATA holds the photo archives (default: shared/data beside the project). Adapted on the first five
CIFAR-10 classes (16 shots, the other training photos validate); own images are their test photos,
out-of-distribution images the test photos of Tiny ImageNet.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fewclip
from fewclip import decide

METHODS = ("gda", "fine-tune", "skip-tuning", "kgcoop+dept")
SEEDS = (1, 2, 3)


def auroc(own: np.ndarray, outside: np.ndarray) -> float:
    """Chance that an own image (n,) scores above another (m,), ties counted half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    return float(below.mean() / (2 * len(outside)))


def scores(clf: fewclip.Classifier, images: Sequence[Path]) -> np.ndarray:
    """(n,) of the score behind `known`."""
    itm, cat, ood_score = clf.model_outputs(images)
    return decide.in_distribution_score(itm, cat, clf.card.head, clf.card.calibration, ood_score)


def main(data: Path, methods: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for pack in ("cifar10-fewshot", "tiny-imagenet-fewshot"):
            with tarfile.open(data / f"{pack}.tar") as tar:
                tar.extractall(name, filter="data")
        cifar = Path(name, "cifar10-fewshot")
        base = sorted(p.name for p in (cifar / "train").iterdir())[:5]
        own = [p for label in base for p in sorted((cifar / "test" / label).iterdir())]
        outside = sorted(Path(name, "tiny-imagenet-fewshot", "test").glob("*/*"))
        print("| method | AUROC | OOD refused, 95 % of own accepted | OOD refused | own accepted |")
        print("|---|---|---|---|---|")
        for method in methods:
            rows = []
            for seed in SEEDS:
                clf = fewclip.adapt(cifar, method=method, classes=base, seed=seed, progress=False)
                mine, other = scores(clf, own), scores(clf, outside)
                bound = clf.card.calibration.threshold
                assert bound is not None
                at_95 = (other < np.quantile(mine, 0.05)).mean()
                rows.append([auroc(mine, other), at_95, (other < bound).mean()])
                rows[-1].append((mine >= bound).mean())
            cells = " | ".join(f"{100 * value:.1f} %" for value in np.mean(rows, axis=0))
            print(f"| {method} | {cells} |", flush=True)
    print(
        f"\nMean of seeds {', '.join(map(str, SEEDS))}; the last two columns are at the threshold "
        f"kept in the card. {len(own)} own images, {len(outside)} out-of-distribution images."
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    place = Path(words[0]) if words else Path(__file__).parents[2] / "shared" / "data"
    main(place, words[1:] or METHODS)
