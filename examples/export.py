"""A classifier to ONNX, then used without torch: python examples/export.py pets pets-onnx a.jpg"""

from __future__ import annotations

import sys

import fewclip
from fewclip.runtime import OnnxClassifier


def main(model: str, out: str, image: str) -> None:
    """Export behind the parity gate, then predict with the exported folder."""
    report = fewclip.load(model).export_onnx(out, precision="fp32", overwrite=True)
    print(f"largest difference {report.max_abs_diff:.1e}")
    answer = OnnxClassifier(out).predict([image], top_k=3)[0]
    print(f"{answer.label} {answer.score:.1%}, known: {answer.known}")


if __name__ == "__main__":
    main(*sys.argv[1:])
