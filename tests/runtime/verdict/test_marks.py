"""Files of marks as the report exports them and as tables, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.verdict.marks import Mark, marks_of, read_marks

CONTENT: dict[str, Any] = {
    "format": "musc-edge marks",
    "schema": 1,
    "lot": "lot",
    "bundle": "ab" * 32,
    "threshold": 0.45,
    "judged_by": "score",
    "marks": [
        {"image": "1.png", "mark": "bad", "remark": "scratch, 2 mm"},
        {"image": "größe\udce9.png", "mark": "good", "remark": ""},
        {"image": "3.png", "mark": "", "remark": "?"},
        {"image": "4.png", "mark": "", "remark": ""},
    ],
}
EXPECTED = {"1.png": Mark("bad", "scratch, 2 mm"), "größe\udce9.png": Mark("good"), "3.png": Mark("", "?")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "marks"


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**CONTENT, **changes}))
    return path


def test_json(path: Path) -> None:
    marks = read_marks(write(path))
    assert marks.marks == EXPECTED
    assert (marks.lot, marks.bundle, marks.threshold, marks.judged_by) == ("lot", "ab" * 32, 0.45, "score")
    assert marks.review_from is None  # files of earlier versions do not have it
    assert read_marks(write(path, review_from=0.4)).review_from == 0.4
    assert read_marks(write(path, threshold=None)).threshold is None


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_csv(path: Path, mark: bytes, end: bytes) -> None:
    lines = ["image,mark,remark", '1.png,bad,"scratch, 2 mm"', "größe\udce9.png,good,", "3.png,,?", "4.png,,"]
    path.write_bytes(mark + end.join(line.encode("utf-8", "surrogateescape") for line in lines))
    marks = read_marks(path)
    assert marks.marks == EXPECTED
    assert (marks.lot, marks.bundle, marks.threshold) == (None, None, None)


def test_remarks_may_be_left_out_of_a_table(path: Path) -> None:
    path.write_text("mark,image\nbad,1.png\n")
    assert read_marks(path).marks == {"1.png": Mark("bad")}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "format 'other' of schema 1, expected 'musc-edge marks' of schema 1"),
        ({"schema": 2}, "of schema 2"),
        ({"threshold": "0.5"}, "threshold"),
        ({"threshold": 7}, "threshold 7"),
        ({"threshold": True}, "threshold"),
        ({"review_from": "0.4"}, "review_from '0.4', expected null or a distance"),
        ({"review_from": 0.45}, "review_from 0.45, expected null or less than the threshold"),
        ({"review_from": 0.4, "threshold": None}, "expected null or less than the threshold"),
        ({"judged_by": "lot_score"}, "judged_by"),
        ({"lot": 3}, "lot is 3"),
        ({"marks": {"1.png": "bad"}}, "no list of objects"),
        ({"marks": ["1.png"]}, "no list of objects"),
        ({"marks": [{"image": "1.png", "mark": "BAD"}]}, "expected good, bad or nothing"),
        ({"marks": [{"image": "1.png"}]}, "is None, expected good, bad"),
        ({"marks": [{"image": "", "mark": "bad"}]}, "names no image"),
        ({"marks": [{"image": ["1.png"], "mark": "bad"}]}, "names no image"),
        ({"marks": [{"image": "1.png", "mark": "bad", "remark": 3}]}, "its remark is no text"),
        ({"marks": [{"image": "1.png", "mark": "bad", "remark": "x" * 10_001}]}, "10,000 characters"),
        ({"marks": [{"image": "1.png", "mark": "bad"}] * 2}, "mark 2 ('1.png') is the second of its image"),
        ({"lot": None}, "lot is None"),
    ],
)
def test_json_that_is_no_marks(path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LotError) as caught:
        read_marks(write(path, **changes))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its first line is '', expected image,mark,remark"),
        (b"name,verdict\n1.png,bad\n", "expected image,mark,remark"),
        (b"image,mark\n1.png,maybe\n", "is 'maybe', expected good, bad or nothing"),
        (b"image,mark\n1.png,bad\n1.png,bad\n", "is the second of its image"),
        (b"image,mark\n1.png\n", "is None, expected good, bad or nothing"),
        (b"{", "is no file of marks"),
        (b'{"a":' * 100, "is no file of marks"),
        (b"\xff\xfei\x00m\x00a\x00", "is no file of marks"),
        (b"image,mark,remark\n1.png,bad," + b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_tables_that_are_no_marks(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(LotError) as caught:
        read_marks(path)
    assert said in str(caught.value)


def test_files_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(LotError, match="No such file"):
        read_marks(path)
    with path.open("wb") as file:
        file.truncate(64_000_001)
    with pytest.raises(LotError, match="larger than 64 MB"):
        read_marks(path)


def test_marks_belong_to_their_lot_and_bundle(path: Path) -> None:
    marks = read_marks(write(path))
    names = [*EXPECTED, "other.png"]
    marks.require_about("lot", "ab" * 32, names)
    with pytest.raises(LotError, match="about the lot 'lot', these results about 'other'"):
        marks.require_about("other", "ab" * 32, names)
    with pytest.raises(LotError, match="about the bundle"):
        marks.require_about("lot", "cd" * 32, names)
    with pytest.raises(LotError, match="for which these results have no score"):
        marks.require_about("lot", "ab" * 32, ["1.png"])


def test_marks_in_lot_json() -> None:
    assert marks_of({"marks": {"a": {"mark": "bad", "remark": ""}}}) == {"a": Mark("bad")}
    assert marks_of(None) == marks_of({}) == {}
    with pytest.raises(LotError, match="damaged"):
        marks_of({"marks": {"a": "bad"}})
