"""For the whole run: what the programs under test write is kept for the test that looks for secrets in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import evidence

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
LAST = "test_no_secrets.py"
# Whole operating systems, and packages as they were built: nothing in them was written by a daemon.
_NOT_KEPT = ("imds-root-", "imds-package-")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Removed directories and outputs of commands leave a copy."""
    os.environ[evidence.PLACE] = tempfile.mkdtemp(prefix="imds-proxy-evidence-")
    cleanup, communicate = tempfile.TemporaryDirectory.cleanup, subprocess.Popen.communicate

    def cleanup_and_keep(directory: tempfile.TemporaryDirectory[str]) -> None:
        if not Path(directory.name).name.startswith(_NOT_KEPT):
            with contextlib.suppress(OSError):  # it is gone already
                evidence.keep_tree(Path(directory.name))
        cleanup(directory)

    def communicate_and_keep(process: subprocess.Popen[Any], *args: Any, **named: Any) -> Any:
        streams = communicate(process, *args, **named)
        words = process.args if isinstance(process.args, list) else [process.args]
        if any("imds_proxy" in str(word) or str(word).endswith("imds-proxy") for word in words):
            for data in streams:
                evidence.keep("output", data or b"")
        return streams

    tempfile.TemporaryDirectory.cleanup = cleanup_and_keep  # type: ignore[method-assign,assignment]
    subprocess.Popen.communicate = communicate_and_keep  # type: ignore[method-assign,assignment]


def pytest_sessionfinish(session: pytest.Session) -> None:
    shutil.rmtree(os.environ.pop(evidence.PLACE), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that looks at what all others left is the last."""
    items.sort(key=lambda item: item.path.name == LAST)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What a test printed, and its traceback."""
    evidence.keep("report", "\n".join((*(text for _, text in report.sections), report.longreprtext)))
