"""The decoding processes: the same pixels, and nothing a file does outlives its deadline."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewclip.contract import Preprocess
from fewclip.decoding import decode_pool
from fewclip.decoding.decode_pool import LARGE, LARGE_PIXELS, DecodePool
from fewclip.errors import DecoderBusyError, ImageError, ImageTooLargeError
from fewclip.preprocess import load_image, to_input
from tests.attacks import hostile_images as attack

SPEC = Preprocess(size=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2, max_pixels=20_000_000) as pool:
        yield pool


def photo(width: int = 90, height: int = 70, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()]


@pytest.mark.parametrize("size", [(90, 70), (64, 64), (7, 300), (2000, 1500)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_pixels_are_those_of_this_process_to_the_bit(
    pool: DecodePool, size: tuple[int, int], resize_mode: str
) -> None:
    spec = Preprocess(size=64, mean=SPEC.mean, std=SPEC.std, resize_mode=resize_mode)
    file = photo(*size, "JPEG")
    decoded = pool.decode(file, crop=spec, thumbnail=50)
    assert decoded.crop is not None
    assert decoded.thumbnail is not None
    assert max(decoded.thumbnail.shape[:2]) == min(50, max(size))
    expected = to_input(load_image(file), spec)
    np.testing.assert_array_equal(to_input(Image.fromarray(decoded.crop), spec), expected)


def test_a_path_is_read_and_many_threads_may_ask(pool: DecodePool, tmp_path: Path) -> None:
    (tmp_path / "ä.png").write_bytes(photo())
    expected = pool.decode(tmp_path / "ä.png", crop=SPEC).crop
    threads = [
        threading.Thread(target=lambda: found.append(pool.decode(photo(), crop=SPEC).crop))
        for _ in range(8)
    ]
    found: list[np.ndarray | None] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        np.testing.assert_array_equal(each, expected)
    assert len(found) == 8


def test_errors_are_those_of_this_process(pool: DecodePool, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not an image"):
        pool.decode(b"no image at all", crop=SPEC)
    with pytest.raises(ImageTooLargeError, match="pixels"):
        pool.decode(attack.png_bomb(), crop=SPEC)
    with pytest.raises(ImageError, match="no such file"):
        pool.decode(tmp_path / "none.png", crop=SPEC)


def test_what_takes_too_long_is_killed_and_replaced() -> None:
    with DecodePool(1, max_pixels=20_000_000, seconds=0.5) as pool:
        assert pool.decode(photo(), crop=SPEC).crop is not None
        for _ in range(30):  # on a busy machine it may get no time to take too long
            with pytest.raises(ImageError) as found:
                pool.decode(attack.jpeg_of_many_scans(90, 4000), crop=SPEC)
            if not isinstance(found.value, DecoderBusyError):
                break
        assert "too long" in str(found.value)
        assert pool.decode(photo(), crop=SPEC).crop is not None


def test_a_machine_that_is_busy_with_other_things_makes_no_image_slow() -> None:
    """Its process is stopped for longer than an image may take, and computes nothing."""
    before = set(workers_of(os.getpid()))
    with DecodePool(1, seconds=2) as pool:
        pool.start()
        (worker,) = set(workers_of(os.getpid())) - before
        os.kill(worker, signal.SIGSTOP)
        waking = threading.Timer(3, os.kill, (worker, signal.SIGCONT))
        waking.start()
        assert pool.decode(photo(), crop=SPEC).crop is not None
        waking.join()
        assert set(workers_of(os.getpid())) - before == {worker}


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_machine_without_time_or_memory_is_no_fault_of_the_image(number: signal.Signals) -> None:
    """Its process gets no time at all, or is killed as by a system that is out of memory."""
    before = set(workers_of(os.getpid()))
    with DecodePool(1, seconds=0.2) as pool:
        pool.start()
        (worker,) = set(workers_of(os.getpid())) - before
        os.kill(worker, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (worker, number)).start()
        with pytest.raises(DecoderBusyError, match="try again"):
            pool.decode(photo(), crop=SPEC)
        assert pool.decode(photo(), crop=SPEC).crop is not None


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[DecodePool], None]:
    """Start a pool whose first processes never get done, and in which all count as slow."""
    monkeypatch.setattr(decode_pool, "_QUICK", 0.0)
    before = set(workers_of(os.getpid()))

    def start(pool: DecodePool) -> None:
        pool.start()
        for worker in set(workers_of(os.getpid())) - before:
            os.kill(worker, signal.SIGSTOP)

    return start


def test_of_too_many_slow_images_the_first_is_told_to_come_again(
    stopped: Callable[[DecodePool], None],
) -> None:
    with ThreadPoolExecutor(3) as threads, DecodePool(3, seconds=60) as pool:
        stopped(pool)
        answers = [threads.submit(pool.decode, photo(), crop=SPEC) for _ in range(3)]
        first = next(as_completed(answers))
        with pytest.raises(DecoderBusyError, match="try again"):
            first.result()
        assert sum(answer.done() for answer in answers) == 1


def test_slow_images_do_not_keep_the_others_waiting(
    stopped: Callable[[DecodePool], None],
) -> None:
    with ThreadPoolExecutor(1) as thread, DecodePool(1, seconds=60) as pool:
        stopped(pool)
        slow = thread.submit(pool.decode, photo(), crop=SPEC)
        while not pool._slow:
            time.sleep(0.01)
        assert pool.decode(photo(), crop=SPEC).crop is not None
        assert not slow.done()


def test_many_pixels_in_a_few_bytes_count_as_large(pool: DecodePool) -> None:
    file = attack.webp_of_one_colour(1500)
    assert len(file) < 2000
    assert LARGE_PIXELS < 1500**2
    assert pool.decode_small(file, thumbnail=8) is None
    assert pool.decode(file, thumbnail=8).thumbnail is not None
    assert pool.decode_small(photo(), thumbnail=8) is not None


def test_what_takes_too_much_memory_is_refused() -> None:
    with DecodePool(1, max_pixels=1_000_000_000, memory=500 << 20) as pool:
        with pytest.raises(ImageError, match="memory"):
            pool.decode(attack.png_bomb(13_000), crop=SPEC)
        assert pool.decode(photo(), crop=SPEC).crop is not None


def test_large_files_have_a_lane_of_their_own() -> None:
    """Three of them, and one process for them that has yet to start; a small image is first."""
    large = attack.jpeg_of_many_scans(90, 1500)
    assert len(large) >= LARGE
    small = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(small, "PNG")
    with DecodePool(1) as pool:
        pool.start()
        threads = [
            threading.Thread(target=lambda: pool.decode(large, thumbnail=8)) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        pool.decode(small.getvalue(), thumbnail=8)
        assert any(thread.is_alive() for thread in threads)
        for thread in threads:
            thread.join()


def test_a_process_that_died_is_replaced_and_none_is_left(tmp_path: Path) -> None:
    before = set(workers_of(os.getpid()))
    with DecodePool(1) as pool:
        pool.decode(photo(), crop=SPEC)
        (worker,) = set(workers_of(os.getpid())) - before
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.2)
        pool.decode(photo(), crop=SPEC)
    assert set(workers_of(os.getpid())) <= before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_the_whole_service_is_not_for_the_processes(number: signal.Signals) -> None:
    before = set(workers_of(os.getpid()))
    with DecodePool(1) as pool:
        pool.start()
        (worker,) = set(workers_of(os.getpid())) - before
        os.kill(worker, number)
        time.sleep(0.2)
        assert pool.decode(photo(), crop=SPEC).crop is not None
        assert set(workers_of(os.getpid())) - before == {worker}
    assert set(workers_of(os.getpid())) <= before


def test_a_process_has_no_secrets_no_torch_and_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    code = (
        "import sys, time; from pathlib import Path\n"
        "from fewclip.decoding.decode_pool import DecodePool\n"
        "DecodePool(1).decode(Path(sys.argv[1]), thumbnail=9); print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.png")],
        stdout=subprocess.PIPE,
        env=os.environ | {"FEWCLIP_TOKEN": "secret"},
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (worker,) = workers_of(parent.pid)
        assert b"secret" not in Path(f"/proc/{worker}/environ").read_bytes()
        maps = Path(f"/proc/{worker}/maps").read_text()
        assert "onnxruntime" not in maps
        assert "torch" not in maps
    finally:
        parent.kill()
        parent.communicate()
    ends = time.monotonic() + 10
    while Path(f"/proc/{worker}/cmdline").exists() and time.monotonic() < ends:
        if not Path(f"/proc/{worker}/cmdline").read_bytes():  # a zombie that nobody reaps
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{worker}").exists()
