"""The server answers as its OpenAPI document says; tests/measure/openapi.py asks for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.schemathesis_run import run_schemathesis
from support.served import Server

pytestmark = pytest.mark.long


def test_the_document_is_true(server: Server, tmp_path: Path) -> None:
    said = run_schemathesis(server, tmp_path, 3, "fuzzing")
    assert "No issues found" in said, said
