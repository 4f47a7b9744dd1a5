"""An exported folder over HTTP until Ctrl-C: python examples/serve.py pets-onnx"""

from __future__ import annotations

import os
import sys

from fewclip_service import serve


def main(model: str) -> int:
    """Serve on loopback; set FEWCLIP_TOKEN to require a token."""
    port = int(os.environ.get("FEWCLIP_PORT", "3000"))
    token = os.environ.get("FEWCLIP_TOKEN", "")
    return serve(model, port=port, token=token, max_bytes=5_000_000)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
