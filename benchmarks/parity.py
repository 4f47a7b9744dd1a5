"""How exported models compare with the trained ones on real photos. Prints a Markdown table.

    python -m benchmarks.parity [DATA]

DATA is an archive or folder with train/ and test/ (default: the CIFAR-10 photos in shared/data
beside the project). Adapted on 16 shots; compared on 600 of the test photos, which training and
calibration have not seen, and on twelve images of odd sizes and modes. What fails the gate is
written with force, and the table says so.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

import fewclip
from fewclip_export import ExportReport
from fewclip_export.precision import PRECISIONS

METHODS = ("skip-tuning", "coop+dept", "kgcoop+dept")
COLUMNS = (
    "method | precision | MB | images | largest logit difference | same best class | "
    "with added classes | same on what is unknown | accuracy change | speed beside fp32 | gate"
)


def row(method: str, report: ExportReport) -> str:
    """One line of the table."""
    assert report.accuracy_change is not None
    cells = (
        method,
        report.precision,
        f"{report.size / 1e6:.1f}",
        f"{report.images}",
        f"{report.max_abs_diff:.2g}",
        f"{report.top1_agreement:.2%}",
        f"{report.new_class_agreement:.2%}",
        f"{report.known_agreement:.2%}",
        f"{100 * report.accuracy_change:+.2f} points",
        f"{report.speed_vs_fp32:.2f}",
        "passed" if report.passed else "; ".join(report.failures),
    )
    return f"| {' | '.join(cells)} |"


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if data.is_file():
            with tarfile.open(data) as tar:
                tar.extractall(work, filter="data")
            data = work / data.stem
        print(f"| {COLUMNS} |")
        print("|---" * (COLUMNS.count("|") + 1) + "|")
        for method in METHODS:
            clf = fewclip.adapt(data, method=method, seed=1, progress=False)
            for precision in PRECISIONS:
                out = work / f"{method}-{precision}"
                report = clf.export_onnx(out, precision, images=data / "test", force=True)
                print(row(method, report), flush=True)


if __name__ == "__main__":
    default = Path(__file__).parents[2] / "shared" / "data" / "cifar10-fewshot.tar"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
