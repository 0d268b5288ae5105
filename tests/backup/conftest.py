"""A head-end's folder for each test."""

import os
from pathlib import Path

import pytest

from tests.backup.backup_kit import Place


@pytest.fixture
def place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Place:
    # The commands make themselves nice; the tests behind them must not be.
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    folder = tmp_path / "place"
    folder.mkdir()
    return Place(folder, capsys)
