"""Listing the methods reads their source: it imports no torch, and says what the classes say."""

from __future__ import annotations

import subprocess
import sys

from fewclip.methods import list_methods
from fewclip.methods.registry import feature_methods, method_classes, needs_blocks


def test_the_list_is_what_the_classes_say() -> None:
    classes = method_classes()
    lifted = {f"{name}+dept" for name, cls in classes.items() if cls.dept_ready}
    assert set(list_methods()) == {*classes, *lifted}


def test_what_needs_blocks_is_what_the_classes_say() -> None:
    for name, cls in method_classes().items():
        assert needs_blocks(name) is cls.needs_blocks
    wanted = ["clip-adapter", "clip-adapter+dept", "gda", "linear-probe", "zero-shot"]
    assert feature_methods() == wanted


def test_listing_needs_no_torch() -> None:
    block = "import sys; sys.modules['torch'] = None"
    script = f"{block}; from fewclip.cli.main import main; main(['methods'])"
    found = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert "Skip Tuning: full fine-tuning" in found
