"""Photos in, a tuned classifier out: python examples/adapt.py photos/ pets [method]"""

from __future__ import annotations

import sys

import fewclip


def main(data: str, out: str, method: str = "skip-tuning") -> None:
    """Adapt, say how much it helped, save."""
    clf = fewclip.adapt(data, method=method, shots=16, seed=1)
    before, after = clf.card.metrics.get("before"), clf.card.metrics.get("after")
    if before and after:
        print(f"accuracy {before['accuracy']:.1%} before, {after['accuracy']:.1%} after")
    clf.save(out, overwrite=True)
    print(f"{out}: {', '.join(clf.classes)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
