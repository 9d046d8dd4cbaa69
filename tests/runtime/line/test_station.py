from __future__ import annotations

from pathlib import Path

import pytest

from musc_edge import Checker
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.line.station import Station
from support.references import BUNDLE, part, reference, write_lot


class Counts:
    def __init__(self) -> None:
        self.seen: list[bytes | None] = []

    def see(self, check: object, image: object, key: bytes | None) -> dict[str, int]:
        self.seen.append(key)
        return {"count": len(self.seen)}


def test_an_image_is_checked_and_recorded_once(tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", 12)
    made = reference(tmp_path / "lot", tmp_path / "ref", hold_out=0.3)
    counts = Counts()
    with Checker(made, BUNDLE, 0.3) as checker, ResultLog(tmp_path / "out") as log:
        station = Station("part42", checker, log, (counts,))
        check, entry = station.check(part(99, 150), "spot.png", b"spot")
        assert entry.reference == "part42"
        assert entry.facts["raw_score"] == round(check.raw_score, 6)
        assert entry.facts["count"] == 1
        with pytest.raises(KeyError):
            station.check(part(99, 150), "spot.png", b"spot")
        (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        _, bad = station.check(tmp_path / "bad.png")
        assert bad.facts["status"] == "unreadable"
        assert [e.facts["image"] for e in log.last(9)] == [str(tmp_path / "bad.png"), "spot.png"]
    assert counts.seen == [b"spot", b"spot", None]
