"""A lot at a URL: what is listed, what is asked of the server, and what is said where it fails."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime import remote
from musc_edge.runtime.errors import DeviceError, LotError, OutputError
from musc_edge.runtime.images.left_out import ODD
from musc_edge.runtime.images.listing import Listing, list_lot
from musc_edge.runtime.images.reading import ImageError, read_header, read_image
from musc_edge.runtime.images.remote_blocks import BLOCK, MOST_BLOCKS, Blocks
from musc_edge.runtime.images.same_files import same_files
from musc_edge.runtime.images.survey import ReadOptions, Survey, survey_lot
from musc_edge.runtime.remote import RemoteFile, RemoteFolder, is_url
from support.lots import pixels
from support.object_store import BUCKET, ObjectStore, object_store

URL = f"s3://{BUCKET}/lot"


@pytest.fixture(scope="module")
def one_store() -> Iterator[ObjectStore]:
    with object_store() as store, store.found():
        yield store


@pytest.fixture
def store(one_store: ObjectStore) -> Iterator[ObjectStore]:
    """An empty bucket."""
    yield one_store
    one_store.faults.status = lambda request: None
    for each in one_store.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        one_store.remove(each["Key"])


def png(seed: int = 0, side: int = 20) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels(side, side, seed=seed)).save(content, "PNG")
    return content.getvalue()


def fill(store: ObjectStore, *names: str) -> None:
    for seed, name in enumerate(names):
        store.put(f"lot/{name}", png(seed))


def surveyed() -> Survey:
    return survey_lot(list_lot(URL), ReadOptions(), threads=2)


def names(listing: Listing) -> list[str]:
    return [image.name for image in listing]


def test_the_same_files_are_taken_as_from_a_folder(store: ObjectStore, tmp_path: Path) -> None:
    given = {
        "2.png": png(), "10.png": png(1), "sub/day 1/é.png": png(2), "no ending": png(3), "notes.txt": b"x",
        "text": b"hello", ".hidden/a.png": png(), "@eaDir/b.png": png(), "raw.cr2": b"x", "raw.jpg": png(),
        "old/lot.json": b'{"lot": 1, "images": 2, "skipped": [], "warnings": []}', "old/maps/x.png": png(),
        "\x01odd.png": png(),
    }  # fmt: skip
    for name, content in given.items():
        path = tmp_path / "lot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    url = store.put_folder(tmp_path / "lot", "lot")
    here, there = list_lot(tmp_path / "lot"), list_lot(url)
    assert names(there) == names(here)
    assert there.left_out == here.left_out
    assert there.notes() == here.notes()
    chosen: dict[str, Any] = {"include": ["*.png"], "exclude": ["sub"]}
    assert names(list_lot(url, **chosen)) == names(list_lot(tmp_path / "lot", **chosen))
    listed = ["sub/../2.png", f"{url}/10.png", "not there.png"]
    assert names(list_lot(url, names=listed)) == ["2.png", "10.png", "not there.png"]


def test_keys_that_no_folder_has_are_left_out_and_lead_nowhere(store: ObjectStore) -> None:
    odd = ["/a.png", "../../b.png", "x/../c.png", "./d.png", "x//e.png", "x.png/"]
    fill(store, "1.png", "1.png/2.png", *odd)
    store.put("lot/folder/", b"")  # as a console makes it
    listing = list_lot(URL)
    assert names(listing) == ["1.png", "1.png/2.png"]
    assert {entry.name for entry in listing.left_out} == set(odd)
    assert {entry.why for entry in listing.left_out} == {ODD}
    said = "left out, keys with a part that is empty, . or .., which no folder has: 1 folder with 1 file"
    assert listing.notes()[0].startswith(said)
    for name in ("../x.png", "/etc/x.png", "a/../../x.png", f"s3://{BUCKET}/other/x.png", "."):
        with pytest.raises(LotError, match="is no file below s3"):
            list_lot(URL, names=[name])


def test_images_are_read_as_those_of_a_folder(store: ObjectStore, tmp_path: Path) -> None:
    deep = (np.random.default_rng(0).integers(0, 4096, (40, 30))).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.tiff")
    Image.fromarray(pixels(300, 400)).save(tmp_path / "a.jpg")
    Image.fromarray(pixels(900, 1200)).save(tmp_path / "large.png")  # of many blocks
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (tmp_path / "damaged.png").write_bytes(png(1)[:-40])
    (tmp_path / "empty.png").write_bytes(b"")
    store.put_folder(tmp_path, "lot")
    there, here = surveyed(), survey_lot(list_lot(tmp_path), ReadOptions(), threads=2)
    assert there.bit_depth == here.bit_depth == 12
    assert there.skipped == here.skipped
    for image, own in zip(there.images, here.images, strict=True):
        a, b = there.headers[image.name], here.headers[image.name]
        assert (a.width, a.height, a.bits, a.pages) == (b.width, b.height, b.bits, b.pages)
        assert a.decode_bytes == b.decode_bytes + own.local.stat().st_size
        assert a.stamp[1] == own.local.stat().st_size
        if image.name != "damaged.png":
            assert there.read(image).tobytes() == here.read(own).tobytes()


def test_headers_take_blocks_and_files_one_request(store: ObjectStore) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG", quality=95)
    size = len(content.getvalue())
    assert size > 2 * BLOCK
    store.put("lot/1.jpg", content.getvalue())
    (image,) = list_lot(URL)
    store.faults.requests.clear()
    header = read_header(image.path)
    assert store.faults.requests.count("GET /plant/lot/1.jpg") <= 2
    assert isinstance(image.path, RemoteFile)
    store.faults.requests.clear()
    read_image(image.path, stamp=header.stamp)
    assert sorted(store.faults.requests) == ["GET /plant/lot/1.jpg", "HEAD /plant/lot/1.jpg"]


def test_a_file_that_is_looked_at_all_over_is_fetched_whole(store: ObjectStore) -> None:
    content = np.random.default_rng(0).bytes(40 * BLOCK + 17)
    store.put("lot/big.png", content)
    file = RemoteFolder.of(URL).file("big.png")
    store.faults.requests.clear()
    with io.BufferedReader(Blocks(file, len(content))) as blocks:
        for start in range(len(content) - 5, 0, -BLOCK):
            blocks.seek(start)
            assert blocks.read(5) == content[start : start + 5]
        blocks.seek(-3, io.SEEK_END)
        assert blocks.read() == content[-3:]
        blocks.seek(0)
        assert blocks.read() == content
        with pytest.raises(ValueError, match="negative"):
            blocks.seek(-1)
    assert store.faults.requests.count("GET /plant/lot/big.png") == MOST_BLOCKS + 1


def test_a_file_that_is_replaced_or_removed_is_known(store: ObjectStore) -> None:
    fill(store, "1.png", "2.png", "3.png")
    survey = surveyed()
    store.put("lot/1.png", png(9))
    store.remove("lot/2.png")
    reasons = []
    for image in survey.images[:2]:
        with pytest.raises(ImageError) as caught:
            survey.read(image)
        reasons.append((caught.value.status, str(caught.value)))
    assert reasons == [
        ("unreadable", "the file changed while the lot was being read"),
        ("unreadable", "No such file or directory"),
    ]
    survey.read(survey.images[2])


def test_what_the_server_refuses_is_a_row(store: ObjectStore) -> None:
    fill(store, "1.png", "2.png", "3.png")
    store.faults.status = lambda request: "403 Forbidden" if request.endswith("2.png") else None
    survey = surveyed()
    assert [image.name for image in survey.images] == ["1.png", "3.png"]
    (skipped,) = survey.skipped
    assert (skipped.name, skipped.status) == ("2.png", "unreadable")
    assert "Forbidden" in skipped.reason or "Permission denied" in skipped.reason


def test_a_server_that_is_busy_is_asked_again(store: ObjectStore) -> None:
    fill(store, "1.png")
    seen = list[str]()

    def busy(request: str) -> str | None:
        seen.append(request)
        return "503 Slow Down" if len(seen) == 2 else None

    store.faults.status = busy
    assert len(surveyed().images) == 1


def test_files_of_the_same_bytes_are_found(store: ObjectStore) -> None:
    fill(store, "1.png", "2.png", "3.png")
    store.put("lot/copy.png", png(1))
    listing = list_lot(URL)
    assert same_files([image.path for image in listing]) == [(1, 3)]
    gone = RemoteFolder.of(URL).file("gone.png")
    assert same_files([gone, listing[0].path]) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"s3://{BUCKET}/none", f"there is nothing at s3://{BUCKET}/none"),
        ("s3://no-such-bucket/lot", "there is nothing at|cannot be listed: FileNotFoundError"),
        (f"{URL}/1.png", "is a file, not a folder"),
        ("unheard://of/it", "unheard://of/it cannot be opened: ValueError: Protocol not known: unheard"),
        ("s3://", "cannot be listed: ValueError"),
        ("filecache::s3://plant/lot", "names several protocols"),
    ],
)
def test_where_no_lot_is_is_said(url: str, said: str, store: ObjectStore) -> None:
    fill(store, "1.png")
    with pytest.raises(LotError, match=said):
        list_lot(url)


def test_a_lot_without_images_is_said(store: ObjectStore) -> None:
    store.put("lot/notes.txt", b"x")
    with pytest.raises(LotError, match=f"no image was found below {URL}"):
        list_lot(URL)
    with pytest.raises(LotError, match="no file or folder below"):
        list_lot(URL, include=["*.tif"])


def test_a_list_that_is_denied_is_said(store: ObjectStore) -> None:
    store.faults.status = lambda request: "403 Forbidden"
    with pytest.raises(LotError, match=r"cannot be listed: PermissionError.*credentials"):
        list_lot(URL)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@plant/lot", "https://user@host/lot", "s3://key:sec/ret@plant/lot",
        "https://host/lot?X-Amz-Signature=secret", "sftp://me:secret@host/lot",
    ],
)  # fmt: skip
def test_a_url_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(LotError, match="holds a password or a signature") as refused:
        list_lot(url)
    assert url.partition("://")[2][:3] not in str(refused.value)


def test_urls_are_told_from_paths() -> None:
    for url in ("s3://b/lot", "abfs://container@account.dfs.core.windows.net/lot", "http://[::1]:80/lot"):
        assert is_url(url)
        assert str(RemoteFolder.of(f"{url}/")) == url
        assert RemoteFolder.of(url).name == "lot"
    for path in ("lot", "/lot", "./s3://b", "C:\\lot", Path("s3://b")):
        assert not is_url(path)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"library that is not installed.*gcsfs.*musc-edge\[remote\]"):
        list_lot("gs://bucket/lot")
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(DeviceError, match=r"fsspec is not installed.*pip install 'musc-edge\[remote\]'"):
        list_lot("s3://another/lot")


def test_files_for_which_there_is_no_room_are_said(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "1.png")
    file = RemoteFolder.of(URL).file("1.png")
    assert file.why_too_large(1) is None
    monkeypatch.setattr(RemoteFile, "why_too_large", lambda self, size: "5 TB to fetch, and 1 GB are free")
    (skipped,) = surveyed().skipped
    assert (skipped.status, skipped.reason) == ("too_large", "5 TB to fetch, and 1 GB are free")

    def full(place: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(remote._opened(URL)[0], "get_file", full)
    with pytest.raises(OutputError, match=f"{URL}/1.png does not fit into .*: No space left on device"):
        file.fetch()


def test_a_file_that_comes_incomplete_is_not_taken(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "1.png")

    def half(place: str, target: str) -> None:
        Path(target).write_bytes(png()[:100])

    survey = surveyed()
    monkeypatch.setattr(remote._opened(URL)[0], "get_file", half)
    with pytest.raises(ImageError, match=f"100 bytes came, of {len(png())}"):
        survey.read(survey.images[0])


def test_other_file_systems_serve_as_well(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a.png", "b/c.png"):
        memory.pipe_file(f"/lot/{name}", png())
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    for url in ("memory://lot", f"file://{tmp_path}"):
        survey = survey_lot(list_lot(url), ReadOptions(), threads=1)
        assert [image.name for image in survey.images] == ["a.png", "b/c.png"]
        assert survey.read(survey.images[1]).size == (20, 20)
    memory.rm("/lot", recursive=True)
