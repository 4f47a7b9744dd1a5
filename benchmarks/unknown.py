"""How well 'none of these' works: own images against others, as a matrix. Prints Markdown.

    python -m benchmarks.unknown [DATA] [--methods gda skip-tuning ...] [--own cifar-5 ...]
                                 [--seeds 1 ...] [--val auto|0] [--shots 16]

DATA holds the photo archives (default: shared/data beside the project). Adapted on training photos;
own and out-of-distribution (OOD) images are test photos, which took no part in any choice.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import fewclip
from benchmarks.unknown_images import (
    ADDED,
    OOD,
    OWN,
    Images,
    generate,
    is_design,
    is_near,
    phrases,
    read_own,
)
from fewclip import decide
from fewclip.heads import FeatureSample
from fewclip.training.features import sample_features

METHODS = ("gda", "kgcoop+dept", "skip-tuning", "auto")
OWN_IMAGES, OOD_IMAGES = 200, 100
TYPED_IN = ("zebra", "grand piano")  # neither is in any of the sets
MOST_ACCEPTED = 0.10


@dataclasses.dataclass(frozen=True)
class Cell:
    """One pair: AUROC, and the share of OOD images accepted, also after `TYPED_IN` was added."""

    auroc: float
    accepted: float
    accepted_typed_in: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One model: its pairs; shares of own test photos accepted, of photos of a class added by name
    that it assigns to that class, and of those accepted; and the method."""

    cells: dict[str, Cell]
    own_accepted: float
    added_given: float
    added_accepted: float
    method: str


def auroc(own: np.ndarray, outside: np.ndarray) -> float:
    """Chance that an own image (n,) scores above another (m,), ties counted half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    return float(below.mean() / (2 * len(outside)))


def scores(clf: fewclip.Classifier, sample: FeatureSample) -> tuple[np.ndarray, np.ndarray]:
    """(n,) scores behind `known`, and (n,) whether each is known."""
    middle = None if sample.intermediate is None else torch.from_numpy(sample.intermediate)
    outputs = clf.outputs_of(torch.from_numpy(sample.features), middle)
    head, calibration = clf.card.head, clf.card.calibration
    assert outputs.ood_score is not None
    found = decide.in_distribution_score(
        *outputs[:2], head, calibration, outputs.ood_score, outputs.named_bound
    )
    assert calibration.threshold is not None
    return found, found >= calibration.threshold


def best(clf: fewclip.Classifier, sample: FeatureSample) -> np.ndarray:
    """(n,) the most probable class of each image."""
    middle = None if sample.intermediate is None else torch.from_numpy(sample.intermediate)
    outputs = clf.outputs_of(torch.from_numpy(sample.features), middle)
    logits = outputs.logits_itm, outputs.logits_cat
    found: np.ndarray = decide.log_probabilities(*logits, clf.card.head).argmax(1)
    return found


def evenly(total: int, count: int) -> np.ndarray:
    """At most `count` of `total` indices, evenly from first to last."""
    return np.linspace(0, total - 1, min(count, total)).astype(int)


class Matrix:
    """Test images, encoded once per image tower: most methods leave CLIP's own unchanged."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.frozen: dict[str, FeatureSample] = {}

    def test_sample(self, clf: fewclip.Classifier, name: str) -> FeatureSample:
        if name in self.frozen and not clf.method.trains_images:
            return self.frozen[name]
        if name in (*OWN, ADDED):
            parts = read_own(self.data, self.folder, name, "test").values()
            listed = [image for part in parts for image in part]
            most = len(listed) if name == ADDED else OWN_IMAGES
            images: Images = [listed[k] for k in evenly(len(listed), most)]
        else:
            images = generate(name, OOD_IMAGES)
        found = sample_features(clf.method, images, [0] * len(images), list(clf.classes))
        if not clf.method.trains_images:
            self.frozen[name] = found
        return found

    def added(self, clf: fewclip.Classifier) -> tuple[float, float]:
        """`Row.added_given` and `Row.added_accepted`: each class is added by itself."""
        parts = read_own(self.data, self.folder, ADDED, "test")
        sample = self.test_sample(clf, ADDED)
        of = np.repeat(np.arange(len(parts)), [len(images) for images in parts.values()])
        given, accepted = 0, 0
        for k, phrase in enumerate(phrases(ADDED, list(parts)).values()):
            wider = clf.add_classes([phrase])
            mine = sample.take(of == k)
            named = best(wider, mine) == len(wider.classes) - 1
            given += int(named.sum())
            accepted += int((named & scores(wider, mine)[1]).sum())
        return given / len(of), accepted / max(given, 1)

    def row(self, own: str, method: str, shots: int, val: str | float, seed: int) -> Row:
        """Adapt on training photos, score test photos."""
        train = read_own(self.data, self.folder, own, "train")
        words = phrases(own, list(train))
        clf = fewclip.adapt(
            train, method=method, classes=words, shots=shots, val=val, seed=seed, progress=False
        )
        wider = clf.add_classes(TYPED_IN)
        mine, accepted = scores(clf, self.test_sample(clf, own))
        cells = {}
        for name in OOD:
            if name == own:
                continue
            sample = self.test_sample(clf, name)
            sample = sample.take(evenly(len(sample.labels), OOD_IMAGES))
            other, known = scores(clf, sample)
            typed = scores(wider, sample)[1]
            cells[name] = Cell(auroc(mine, other), float(known.mean()), float(typed.mean()))
        given, kept = self.added(clf)
        return Row(cells, float(accepted.mean()), given, kept, clf.card.method)


def summary(pairs: dict[tuple[str, str], Cell], title: str) -> str:
    """One line about some of the pairs."""
    if not pairs:
        return ""
    cells = list(pairs.values())
    over = [f"{own} > {ood}" for (own, ood), c in pairs.items() if c.accepted > MOST_ACCEPTED]
    return (
        f"{title}: mean AUROC {np.mean([c.auroc for c in cells]):.3f}, "
        f"OOD accepted {np.mean([c.accepted for c in cells]):.1%} "
        f"({np.mean([c.accepted_typed_in for c in cells]):.1%} with {len(TYPED_IN)} classes typed "
        f"in), more than {MOST_ACCEPTED:.0%} on {len(over)} of {len(cells)} pairs"
        + (f" ({', '.join(over)})" if over else "")
        + "."
    )


def print_method(
    matrix: Matrix, method: str, owns: Sequence[str], given: argparse.Namespace
) -> None:
    """One table, and its means."""
    print(f"\n## {method}\n\n| own | {' | '.join(OOD)} | own accepted | added: given / accepted |")
    print("|---" * (len(OOD) + 3) + "|")
    pairs: dict[tuple[str, str], Cell] = {}
    for own in owns:
        runs = [matrix.row(own, method, given.shots, given.val, seed) for seed in given.seeds]
        texts = []
        for ood in OOD:
            if ood == own:
                texts.append("")
                continue
            fields = [dataclasses.astuple(run.cells[ood]) for run in runs]
            cell = pairs[own, ood] = Cell(*(float(x) for x in np.mean(fields, axis=0)))
            text = f"{100 * cell.auroc:.0f} / {100 * cell.accepted:.0f}"
            text = f"**{text}**" if not is_design(own, ood) else text
            texts.append(f"({text})" if is_near(own, ood) else text)
        shares = [(run.own_accepted, run.added_given, run.added_accepted) for run in runs]
        accepted, added, kept = 100 * np.mean(shares, axis=0)
        chosen = f" ({', '.join(sorted({run.method for run in runs}))})" if method == "auto" else ""
        print(
            f"| {own}{chosen} | {' | '.join(texts)} | {accepted:.0f} | {added:.0f} / {kept:.0f} |",
            flush=True,
        )
    far = {pair: cell for pair, cell in pairs.items() if not is_near(*pair)}
    print()
    print(summary({p: c for p, c in far.items() if not is_design(*p)}, "Far, not designed on"))
    print(summary({p: c for p, c in far.items() if is_design(*p)}, "Far, designed on"))
    print(summary({p: c for p, c in pairs.items() if is_near(*p)}, "Near"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--own", nargs="+", default=OWN, choices=OWN)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--val", default="auto", type=lambda v: v if v == "auto" else float(v))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        matrix = Matrix(given.data, Path(name))
        for method in given.methods:
            print_method(matrix, method, given.own, given)
    print(
        f"\nCells: AUROC / OOD accepted at the model's own threshold, per cent; in bold the pairs "
        f"that the score was not designed on, in brackets the near ones. Added: photos of a "
        f"class added by name, given to it / of those accepted, per cent. {given.shots} shots, "
        f"val={given.val}, seeds {given.seeds}; up to {OWN_IMAGES} own and {OOD_IMAGES} OOD images."
    )


if __name__ == "__main__":
    main()
