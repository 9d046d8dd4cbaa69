"""The features of a lot as a cluster's objects: those of one machine, however they are put together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.cluster.engine import Node
from musc_edge.runtime.cluster.extraction import extract_on
from musc_edge.runtime.cluster.object_store import ObjectStore
from musc_edge.runtime.cluster.worker_vit import WorkerVit
from musc_edge.runtime.images.listing import list_lot
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.settings import Resources
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import no_progress
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.choose import make_backend
from musc_edge.runtime.vit.extract import extract, store_shape
from support.inline_cluster import InlineCluster

OTHER = Node("other", 2, 0, 1 << 40, 1 << 40)


@pytest.fixture
def lot(solar_cells: Path, tmp_path: Path) -> Path:
    """13 files, of which two end too early."""
    for path in sorted((solar_cells / "elpv_dataset/data/images").iterdir())[:11]:
        shutil.copy(path, tmp_path)
    for name in ("cell0003a.png", "z.png"):
        (tmp_path / name).write_bytes(path.read_bytes()[:9000])
    return tmp_path


@pytest.mark.parametrize("of", ["one machine", "two machines", "one without the memory"])
def test_features_are_those_of_one_machine(of: str, lot: Path, quick_bundle: Path) -> None:
    bundle, survey = open_bundle(quick_bundle), survey_lot(list_lot(lot), ReadOptions(), threads=1)
    shape = store_shape(len(survey.images), bundle)
    expected = HostStore(
        np.empty(shape, np.float32), np.empty((shape[1], bundle.manifest.cls_width), np.float32)
    )
    with make_backend("cpu", bundle, 1, 2) as backend:
        read, failed = extract(survey, backend, bundle.manifest.preprocess, expected, batch=2)
    clusters = {
        "one machine": InlineCluster(),
        "two machines": InlineCluster(2, 1 << 40, OTHER),
        "one without the memory": InlineCluster(store=2 * expected.tokens.nbytes - 1),
    }
    cluster = clusters[of]
    store = ObjectStore(cluster, shape, np.dtype(np.float32), np.empty_like(expected.cls))
    with WorkerVit(cluster, bundle, Resources(backend="cpu", threads=1, batch=2)) as vit:
        assert extract_on(vit, survey, store, no_progress) == (read, failed)
    assert (len(read), len(failed)) == (11, 2)
    assert store.cls[:11].tobytes() == expected.cls[:11].tobytes()
    for layer in range(shape[0]):
        assert store.block(layer, 0, 11).tobytes() == expected.block(layer, 0, 11).tobytes()
        places = np.array([3, 0, 5])
        assert store.some(layer, 4, 9, places).tobytes() == expected.some(layer, 4, 9, places).tobytes()
        patches = np.arange(11) % 6
        assert store.picked(layer, patches).tobytes() == expected.picked(layer, patches).tobytes()
    objects = {id(each.reference) for image in store.found for each in image}
    shards = 6  # of two files, and one of which none can be read
    assert len(objects) == (shards if of == "one machine" else 11 * shape[0])
