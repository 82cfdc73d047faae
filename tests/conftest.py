"""Fixtures: the real videos where they are at hand, small folders and stores made of generated ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds import moving_square

from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.video import write_video

# Before torch is loaded: see the command line, which does the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

DATA = Path(os.environ.get("BGAUG_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Real videos, kept next to the checkout and never in it."""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real videos; the test is skipped with a reason if there is none."""
    if not DATA.is_dir():
        pytest.skip(f"no real videos at {DATA}; set BGAUG_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short videos in two class folders, 48x64, 24 to 34 frames."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        path = folder / ("walk", "run")[number % 2] / f"clip {number} é.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, moving_square(number, 24 + 2 * number)[0])
    return folder


@pytest.fixture(scope="session")
def small_store(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of those videos at their own size, JPEG frames."""
    out = tmp_path_factory.mktemp("store") / "shards"
    build_shards(ShardOptions(inputs=[video_folder], out=out, in_process=True, size=None), Silent())
    return out


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes in the background start with SIGINT ignored, and so do their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch uses one thread, as in processes whose OMP_NUM_THREADS is 1.

    Another number of threads adds in another order, and training steps amplify the difference.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


LINES: list[str] = []
"""Lines that tests print under their results."""


@pytest.fixture(scope="session")
def report() -> list[str]:
    """Lines appended here stand in the tests' output."""
    return LINES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LINES:
        terminalreporter.section("measured")
        for line in LINES:
            terminalreporter.line(line)
