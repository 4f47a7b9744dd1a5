"""What an operator may set, from environment and flags. No server code, no defaults elsewhere.

Every field has an environment variable (`max_bytes` -> `FEWCLIP_MAX_BYTES`) and a flag of
`fewclip serve` (`--max-bytes`). The environment is how they reach the worker processes, and how a
container is configured.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from typing import Any

from fewclip.errors import OptionError

PREFIX = "FEWCLIP_"
MiB = 1 << 20

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


def _option(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of the service, checked.

    Raises:
        OptionError: a value out of range.
    """

    model: str = _option("", "an exported folder, or a folder of exported folders")
    host: str = _option("127.0.0.1", "IP address to listen on; 0.0.0.0 for all")
    port: int = _option(3000, "port to listen on")
    workers: int = _option(1, "processes; each holds the models")
    threads: int = _option(0, "threads per operator and worker; 0 shares out the cores")
    device: str = _option("auto", "auto, cpu or cuda")
    token: str = _option("", "ask for this bearer token (better set as FEWCLIP_TOKEN)")
    cors: str = _option("", "origins that browsers may call from, comma-separated; off when empty")
    ui: bool = _option(False, "serve a page to try the model at /ui/")
    max_bytes: int = _option(20 * MiB, "bytes of one image")
    max_body: int = _option(64 * MiB, "bytes of one request with several images")
    max_pixels: int = _option(50_000_000, "pixels of one image")
    max_images: int = _option(32, "images of one request")
    max_classes: int = _option(200, "classes named in one request")
    max_batch: int = _option(16, "images that the model takes at once")
    queue: int = _option(128, "images accepted and not yet answered, per worker; then 503")
    timeout: float = _option(30.0, "seconds until a request is answered with 504")
    head_timeout: float = _option(10.0, "seconds until a connection without a whole head is closed")
    connections: int = _option(0, "open at once, per worker; 0 for what its descriptors allow")
    decode_seconds: float = _option(10.0, "seconds until decoding one image is given up")
    poll: float = _option(0.5, "seconds between looks at the model folder")

    def __post_init__(self) -> None:
        for name in ("workers", "max_bytes", "max_pixels", "max_images", "max_classes"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("port", 0 < self.port < 65536, "from 1 to 65535")
        # The page's parts talk to the process that they began with.
        self._check("workers", not self.ui or self.workers == 1, "1 with --ui")
        self._check("threads", self.threads >= 0, "0 or more")
        self._check("max_batch", self.max_batch >= 2, "at least 2")
        self._check("max_body", self.max_body >= self.max_bytes, "at least max_bytes")
        self._check("queue", self.queue >= self.max_images, "at least max_images")
        self._check("timeout", 0 < self.timeout <= 3600, "from 0 to 3600 seconds")
        self._check("decode_seconds", 0 < self.decode_seconds <= 3600, "from 0 to 3600 seconds")
        self._check("head_timeout", 0 < self.head_timeout <= 3600, "from 0 to 3600 seconds")
        self._check("connections", self.connections >= 0, "0 or more")
        self._check("poll", 0.05 <= self.poll <= 3600, "from 0.05 to 3600 seconds")
        self._check("device", self.device in ("auto", "cpu", "cuda"), "auto, cpu or cuda")
        self._check("token", self.token.isascii() and self.token.isprintable(), "plain ASCII text")
        if self.host == "localhost":
            object.__setattr__(self, "host", "127.0.0.1")
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            self._check("host", False, "an IP address")

    def _check(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            shown = "" if name == "token" else f", not {getattr(self, name)!r}"
            raise OptionError(f"--{name.replace('_', '-')} must be {expected}{shown}")

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins that browsers may call from."""
        return tuple(origin.strip() for origin in self.cors.split(",") if origin.strip())

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Settings as the environment says; what it does not name keeps its default."""
        given = {}
        for field in dataclasses.fields(cls):
            text = environ.get(PREFIX + field.name.upper())
            if text is not None:
                given[field.name] = parse(field.name, text)
        return cls(**given)

    def to_env(self) -> dict[str, str]:
        """Environment variables that `from_env` reads back."""
        return {
            PREFIX + field.name.upper(): str(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }


def parse(name: str, text: str) -> Any:
    """The text of a setting -> its value.

    Raises:
        OptionError: not of the setting's type.
    """
    default: Any = next(f.default for f in dataclasses.fields(Settings) if f.name == name)
    try:
        if isinstance(default, bool):
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError
            return text.lower() in _TRUE
        return type(default)(text)
    except ValueError as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise OptionError(f"{PREFIX}{name.upper()} must be {kind}, not {text!r}") from error
