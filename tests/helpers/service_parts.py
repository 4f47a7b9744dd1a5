"""What the tests of the service share, besides fixtures."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES = ["red", "green", "blue"]

# Limits of the shared server: small, so that exceeding them is cheap.
LIMITS: dict[str, Any] = {
    "max_bytes": 200_000,
    "max_pixels": 1_000_000,
    "max_images": 8,
    "max_classes": 20,
}


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """An image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


_NATIVE = """
import json, pathlib, sys
import bentoml
from bentoml.exceptions import BentoMLException

url, token, asked = json.load(sys.stdin)
with bentoml.SyncHTTPClient(url, token=token) as client:
    for arguments in asked:
        if not arguments["image"].startswith("http"):
            arguments["image"] = pathlib.Path(arguments["image"])
        try:
            print(json.dumps(client.predict(**arguments)))
        except BentoMLException as error:
            print(json.dumps(error.error_code))
"""


def native_client(url: str, asked: list[dict[str, Any]], token: str | None = None) -> list[Any]:
    """What `bentoml.SyncHTTPClient(url).predict(**arguments)` gives for each; a status if refused.

    In a process of its own: importing BentoML gives warnings, which are errors here.
    """
    plain = [{k: str(v) if isinstance(v, Path) else v for k, v in a.items()} for a in asked]
    done = subprocess.run(
        [sys.executable, "-c", _NATIVE],
        input=json.dumps([url, token, plain]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
