"""What an operator may set, from environment and flags. No server code, no defaults elsewhere.

Every field has an environment variable (`max_bytes` -> `FEWCLIP_MAX_BYTES`) and a flag of
`fewclip serve` (`--max-bytes`). The environment is how they reach the worker processes, and how a
container is configured.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import ClassVar

from fewclip.system.settings import BaseSettings, option

MiB = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """All settings of the service, checked.

    Raises:
        OptionError: a value out of range.
    """

    prefix: ClassVar[str] = "FEWCLIP_"

    model: str = option("", "an exported folder, or a folder of exported folders")
    host: str = option("127.0.0.1", "IP address to listen on; 0.0.0.0 for all")
    port: int = option(3000, "port to listen on")
    workers: int = option(1, "processes; each holds the models")
    threads: int = option(0, "threads per operator and worker; 0 shares out the cores")
    device: str = option("auto", "auto, cpu or cuda")
    token: str = option("", "ask for this bearer token (better set as FEWCLIP_TOKEN)", secret=True)
    cors: str = option("", "origins that browsers may call from, comma-separated; off when empty")
    ui: bool = option(False, "serve a page to try the model at /ui/")
    max_bytes: int = option(20 * MiB, "bytes of one image")
    max_body: int = option(64 * MiB, "bytes of one request with several images")
    max_pixels: int = option(50_000_000, "pixels of one image")
    max_images: int = option(32, "images of one request")
    max_classes: int = option(200, "classes named in one request")
    max_batch: int = option(16, "images that the model takes at once")
    queue: int = option(128, "images accepted and not yet answered, per worker; then 503")
    timeout: float = option(30.0, "seconds until a request is answered with 504")
    head_timeout: float = option(10.0, "seconds until a connection without a whole head is closed")
    connections: int = option(0, "open at once, per worker; 0 for what its descriptors allow")
    decode_seconds: float = option(10.0, "seconds until decoding one image is given up")
    poll: float = option(0.5, "seconds between looks at the model folder")

    def __post_init__(self) -> None:
        for name in ("workers", "max_bytes", "max_pixels", "max_images", "max_classes"):
            self.check(name, getattr(self, name) >= 1, "at least 1")
        self.check("port", 0 < self.port < 65536, "from 1 to 65535")
        # The page's requests must all reach the process that they began with.
        self.check("workers", not self.ui or self.workers == 1, "1 with --ui")
        self.check("threads", self.threads >= 0, "0 or more")
        self.check("max_batch", self.max_batch >= 2, "at least 2")
        self.check("max_body", self.max_body >= self.max_bytes, "at least max_bytes")
        self.check("queue", self.queue >= self.max_images, "at least max_images")
        self.check("timeout", 0 < self.timeout <= 3600, "from 0 to 3600 seconds")
        self.check("decode_seconds", 0 < self.decode_seconds <= 3600, "from 0 to 3600 seconds")
        self.check("head_timeout", 0 < self.head_timeout <= 3600, "from 0 to 3600 seconds")
        self.check("connections", self.connections >= 0, "0 or more")
        self.check("poll", 0.05 <= self.poll <= 3600, "from 0.05 to 3600 seconds")
        self.check("device", self.device in ("auto", "cpu", "cuda"), "auto, cpu or cuda")
        self.check("token", self.token.isascii() and self.token.isprintable(), "plain ASCII text")
        if self.host == "localhost":
            object.__setattr__(self, "host", "127.0.0.1")
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            self.check("host", False, "an IP address")

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins that browsers may call from."""
        return tuple(origin.strip() for origin in self.cors.split(",") if origin.strip())
