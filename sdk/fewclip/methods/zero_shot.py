"""Zero-shot CLIP: the frozen towers and a template. The yardstick; nothing is trained."""

from __future__ import annotations

from typing import ClassVar

from fewclip.methods.base import Method


class ZeroShot(Method):
    """CLIP as it is (Radford et al., ICML 2021, arXiv 2103.00020)."""

    name: ClassVar[str] = "zero-shot"
    trains: ClassVar[bool] = False
    dept_ready: ClassVar[bool] = False
    needs_blocks: ClassVar[bool] = False
