"""Ask a running service, with httpx alone: python examples/call.py http://127.0.0.1:3000 a.jpg"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import httpx


def main(url: str, *images: str) -> None:
    """One image, then all of them in one request, then classes of our own."""
    token = os.environ.get("FEWCLIP_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        first = Path(images[0]).read_bytes()
        one = client.post("/v1/predict", files={"image": first}, data={"top_k": "2"})
        one.raise_for_status()
        print(one.json()["label"], one.json()["top"])

        files = [("images", Path(image).read_bytes()) for image in images]
        for image, answer in zip(
            images, client.post("/v1/predict_batch", files=files).json(), strict=True
        ):
            print(image, answer.get("label"), answer.get("error"))

        named = {"classes": json.dumps(["cat", "dog"])}
        answer = client.post("/v1/predict_classes", files={"image": first}, data=named)
        print(answer.json()["label"])


if __name__ == "__main__":
    main(*sys.argv[1:])
