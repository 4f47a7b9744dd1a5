"""The bundled example of step 1: real handwritten digits, some to train and some to test on."""

from __future__ import annotations

from pathlib import Path

from fewclip.samples import digits

TRAIN, TEST = 24, 20  # images of each digit


def example_folder(target: Path) -> None:
    """Write the example as `train/NAME/` and `test/NAME/` into `target`, which is created."""
    for name in digits.NAMES:
        for index in range(TRAIN + TEST):
            folder = target / ("train" if index < TRAIN else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            digits.draw(name, index).save(folder / f"{name}-{index + 1:02d}.png")
