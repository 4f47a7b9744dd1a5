"""What names a backbone can have, and what its folder holds."""

from __future__ import annotations

from pathlib import Path

from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS

MICRO = Path(__file__).parents[2] / "micro"
DEFAULTS_FILE = "fewclip_defaults.json"
LOCAL_FOLDER = f"a folder with {OPEN_CLIP_CONFIG} and {OPEN_CLIP_WEIGHTS}"
WHAT_WORKS = (
    "use 'micro' (bundled), an open_clip model with a tag such as 'ViT-B-16/openai' or "
    f"'ViT-L-14/laion2b_s32b_b82k', or {LOCAL_FOLDER}"
)
