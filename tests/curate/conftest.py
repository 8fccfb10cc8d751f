"""Without the [curate] extra these tests are skipped."""

import pytest

from alignment.curate.require import missing_modules

collect_ignore_glob = ["test_*.py"] if missing_modules() else []


def pytest_report_header() -> str | None:
    return f"curate: skipped, not installed: {', '.join(missing_modules())}" if missing_modules() else None


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
