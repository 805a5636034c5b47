"""The tests here are about ufuncs; those in native/ about native code."""

import pytest


@pytest.fixture(autouse=True)
def _which_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_NATIVE", "1" if "native" in request.path.parts[-2:] else "0")
