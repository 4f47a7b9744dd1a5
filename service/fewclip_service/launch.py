"""Starting and stopping the server: workers, signals, the listening socket. No requests.

BentoML's arbiter starts the workers and replaces one that dies. It runs in a thread of its own, so
that this process gets the signals: it learns of a worker's death at once instead of ten seconds
later, and of a shutdown before the workers do, to stop new connections before they leave.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fewclip.errors import InputError, MissingExtraError, OptionError
from fewclip.runtime.sessions import gpus
from fewclip_service import logs
from fewclip_service.inference.folders import check_models
from fewclip_service.orphan_keeper import OrphanKeeper
from fewclip_service.settings import Settings

_EXTRA = ("bentoml", "_bentoml_impl", "fastapi", "prometheus_client", "python_multipart")
_SO_ATTACH_FILTER = 26  # Linux
_RETURN_0 = struct.pack("HBBI", 0x06, 0, 0, 0)  # a packet filter that lets nothing pass


def serve(path: str | os.PathLike[str], **settings: Any) -> int:
    """Serve an exported folder, or every exported folder under a folder, until it is stopped.

    On SIGTERM or Ctrl-C no new connection is accepted, and every accepted request is answered.

    Args:
        settings: fields of `Settings`.

    Returns:
        The exit status, 0.

    Raises:
        InputError: no exported folder there, a broken one, or a setting out of range.
        MissingExtraError: BentoML is not installed.
    """
    chosen = Settings(**{**settings, "model": os.path.abspath(path)})
    check_models(Path(chosen.model))
    if chosen.device == "cuda" and not gpus():
        raise OptionError("device 'cuda' was asked for, but there is no GPU here; use cpu or auto")
    if chosen.ui and importlib.util.find_spec("gradio") is None:
        raise MissingExtraError("the page (--ui)", "app")
    _check_port(chosen)
    os.environ.update(chosen.to_env())
    with (
        tempfile.TemporaryDirectory(prefix="fewclip-metrics-") as metrics_folder,
        tempfile.TemporaryDirectory(prefix="fewclip-orphans-") as orphans_folder,
    ):
        _run(chosen, metrics_folder, orphans_folder)
    return 0


def _run(settings: Settings, metrics_folder: str, orphans_folder: str) -> None:
    try:
        from _bentoml_impl.server import serve_http  # type: ignore[import-untyped]
        from bentoml._internal.configuration.containers import BentoMLContainer

        from fewclip_service.service import Fewclip
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in _EXTRA:
            raise MissingExtraError("serving", "service") from error
        raise

    # By default all servers of a user share one folder, and each empties it when it starts.
    BentoMLContainer.prometheus_multiproc_dir.set(metrics_folder)
    logs.configure()
    service: Any = Fewclip
    service.inject_config()
    with OrphanKeeper(orphans_folder):
        server = serve_http(
            service,
            host=settings.host,
            port=settings.port,
            # A client that never reads its answer must not keep the service from stopping.
            timeout_graceful_shutdown=int(settings.timeout) + 10,
            threaded=True,
        )
        address = f"http://{settings.host}:{settings.port}"
        logs.log(logging.INFO, "listening", address=address, docs=f"{address}/v1/docs")
        _wait(server.arbiter, metrics_folder)
        _close_door(server.arbiter)
        server.stop()


def _wait(arbiter: Any, metrics_folder: str) -> None:
    """Wait for SIGTERM or SIGINT; a worker that dies meanwhile is replaced."""
    asked: list[int] = []
    died: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    if sys.platform != "win32":
        signal.signal(signal.SIGCHLD, lambda number, _: died.append(number))
    while not asked:
        time.sleep(0.1)
        if died:
            died.clear()
            arbiter.loop.add_callback(_replace, arbiter, metrics_folder)


def _replace(arbiter: Any, metrics_folder: str) -> None:
    """Restart workers that died, and remove the requests they were busy with from the metrics."""
    from circus.exc import ConflictError  # type: ignore[import-untyped]
    from prometheus_client.multiprocess import mark_process_dead

    with contextlib.suppress(ConflictError):  # still starting: its own checks will see to it
        arbiter.manage_watchers()
    alive = {pid for watcher in arbiter.iter_watchers() for pid in watcher.processes}
    for file in Path(metrics_folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if pid not in alive:
            mark_process_dead(pid, metrics_folder)  # type: ignore[no-untyped-call]


def _close_door(arbiter: Any) -> None:
    """Let no new connection in, while the workers accept those that wait.

    Closing the socket would reset the waiting ones. A filter on it drops the packets of new ones,
    whose senders retry and find the port closed.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(_RETURN_0)
    program = struct.pack("HL", 1, ctypes.addressof(code))
    for listener in arbiter.sockets.values():
        with contextlib.suppress(OSError):  # a kernel without filters: they are reset
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise InputError(
                f"cannot listen on {where}: {error.strerror}; choose another with --port"
            ) from error
