"""Types that many modules share.

Letters in shapes: N images, B batch, S layers, P = Gh*Gw patches, C token width, D CLS width,
H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .._signatures import Demands
from ..kernels.gpu import DeviceArray
from ..kernels.precisions import HALF
from .errors import SkippedImage as SkippedImage  # noqa: PLC0414  # a type of the lot to all others
from .remote import RemoteFile, RemoteFolder

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
FilePath = Path | RemoteFile
"""Where a file of a lot lies."""
LotRoot = Path | RemoteFolder
"""What the names of a lot's images are relative to."""

Cell = tuple[int, int]
"""Two blocks of places on the circle of judges (scoring/judges.py), the first not after the second; the pairs
between them are compared together."""

Progress = Callable[[str, float, float, str], None]
"""A callback ``progress(stage, done, total, unit)``; ``done`` counts units of work, not steps."""


def no_progress(stage: str, done: float, total: float, unit: str) -> None:
    """Report nothing: the default of every function that takes a ``Progress``."""


# ---- bundle ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreprocessSpec:
    """The preprocessing of an image for the graph; stored in the bundle so that all users of it agree.

    ``size`` is (H, W) in pixels, ``mean`` and ``std`` are per RGB channel on the 0-1 scale.
    """

    size: tuple[int, int]
    resize: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class TensorSpec:
    """Name and numpy dtype name of a graph input or output."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """The content of a bundle's ``manifest.json`` (format: README, "A bundle")."""

    schema_version: int
    backbone: str
    pretrained: str
    activation: str
    tap: str
    precision: str
    preprocess: PreprocessSpec
    patch_size: int
    grid: tuple[int, int]
    token_width: int
    cls_width: int
    layers: tuple[int, ...]
    input: TensorSpec
    tokens: tuple[TensorSpec, ...]
    cls: TensorSpec
    files: dict[str, str]
    parity: dict[str, Any]
    made_with: dict[str, str]

    @property
    def patches(self) -> int:
        """Patches per image, P."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, all checked (``open_bundle``).

    Attributes
    ----------
    root : path
        Its folder.
    manifest : Manifest
        What manifest.json says: backbone, preprocessing, grid (Gh, Gw), layers, widths, parity, and so on.
    digest : str
        Hex sha256 of manifest.json, which is the bundle's identity.
    pending : callable, optional
        Waits for hashes that are still being computed; None, as from ``open_bundle``, if there are none.
    demands : tuple
        Who had to have signed it, and has to have signed whatever else is loaded with it (docs/signing.md).
    """

    root: Path
    manifest: Manifest
    digest: str
    pending: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    demands: Demands = ()

    def require_checked(self) -> None:
        """Wait until all is checked; BundleError if a file was changed."""
        if self.pending:
            self.pending()

    @property
    def model_path(self) -> Path:
        """The ONNX graph, with attention in pieces."""
        return self.root / "model.onnx"

    @property
    def attention_path(self) -> Path | None:
        """The same graph with attention as nodes, which newer runtimes know; None if the bundle has none."""
        name = "model.attention.onnx"
        return self.root / name if name in self.manifest.files else None

    @property
    def probe_path(self) -> Path:
        """The probe images with the source model's numbers."""
        return self.root / "probe.npz"


# ---- features --------------------------------------------------------------------------------


class Slot(NamedTuple):
    """Views of a store for one batch, for a backend to write into: ``tokens`` (S,B,P,C) and ``cls`` (B,D)."""

    tokens: Array
    cls: FloatArray


class DeviceSlot(NamedTuple):
    """A ``Slot`` on a GPU: ``tokens`` (B,P,C) of each layer in its memory, ``cls`` (B,D) in the host's."""

    tokens: tuple[DeviceArray, ...]
    cls: FloatArray


@dataclass(frozen=True)
class Uploaded:
    """A batch of ``images`` that a backend has brought to its GPU, as ``value``; for that backend alone."""

    images: int
    value: Any

    def __len__(self) -> int:
        return self.images


class FeatureStore(Protocol):
    """The features of a lot, in host memory, in a file or on a GPU.

    It exists so that backends and scorers need not know which of these it is.
    """

    @property
    def cls(self) -> FloatArray:
        """CLS embeddings (N,D)."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(S, N, P, C)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the tokens."""
        ...

    def slot(self, i0: int, i1: int) -> Slot | DeviceSlot:
        """Return room for images i0..i1, for a backend to write into; valid until the next call."""
        ...

    def finite(self, i0: int, i1: int) -> Array:
        """Return for each of images i0..i1, just written into their slot, whether it is finite throughout."""
        ...

    def put(self, i0: int, i1: int) -> None:
        """Put what was written into the slot of images i0..i1 into the store."""
        ...

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Return tokens (i1-i0,P,C) of one layer, for a scorer; several threads may call this at once."""
        ...

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Return the tokens (i1-i0,K,C) of the patches ``places`` (K,) alone."""
        ...

    def picked(self, layer: int, patches: Array) -> Array:
        """Return the token (N,C) of one patch of each image: that of image i is ``patches[i]``."""
        ...

    def first(self, images: int) -> FeatureStore:
        """Return a view of this store with its first ``images`` images only."""
        ...

    def free(self) -> None:
        """Give back what would not go with the last reference; the store cannot be used any more."""
        ...


class FeatureBackend(Protocol):
    """Runs the bundle's ViT.  A context manager: no device is touched before it is entered."""

    name: str

    max_batch: int | None
    """The largest batch that it takes, known once it is entered; None for any."""

    fills_device: bool
    """True if it runs on the GPU and can write its tokens into a ``DeviceSlot`` there."""

    @property
    def version(self) -> str:
        """The software and hardware that the last bits of the features depend on."""
        ...

    def __enter__(self) -> FeatureBackend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def upload(self, images: FloatArray) -> FloatArray | Uploaded:
        """Bring ``images`` (B,3,H,W) to where ``extract_into`` reads them, if they must be elsewhere.

        Another thread may call it while ``extract_into`` runs.
        """
        ...

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        """Write the tokens and CLS embeddings of ``images`` (B,3,H,W) into ``slot``."""
        ...


# ---- plans -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DevicePlan:
    """The arrays of a lot that are on a GPU at once, decided before any work (runtime/gpu/plan.py).

    Sizes are in bytes.  Tokens of all layers are on the GPU from the start (``holds_tokens``), or they are
    copied ``block`` images at a time into a ring of ``ring`` buffers.  Distances are there for ``panel``
    images at once; features, in half precision or in int8 (``precision``), for all images, or only for those
    of the panel and of one more block (``streamed``).  ``comparisons`` is how often a pair is compared, on
    average.
    """

    budget: int
    holds_tokens: bool
    block: int
    ring: int
    panel: int
    streamed: bool
    comparisons: float
    token_bytes: int
    feature_bytes: int
    distance_bytes: int
    other_bytes: int
    precision: str = HALF

    @property
    def memory_bytes(self) -> int:
        """Device memory that the plan needs, in bytes."""
        return self.token_bytes + self.feature_bytes + self.distance_bytes + self.other_bytes


@dataclass(frozen=True)
class ClusterPlan:
    """What a lot takes of a cluster (runtime/cluster/arcs.py).  Sizes are in bytes.

    ``arc`` images are prepared together; the pairs of two arcs, a cell, are a task, of which there are
    ``cells`` in each layer: none where no pairs are compared.  The process of one takes ``worker_bytes``.
    ``object_bytes`` lie with the machines, in shared memory and beyond it on their disks; ``moved_bytes`` go
    over the network, at most: none on one machine.  ``reserved`` is what a cluster on this machine has of the
    memory budget.
    """

    processors: int
    arc: int
    cells: int
    worker_bytes: int
    object_bytes: int
    moved_bytes: int
    reserved: int


@dataclass(frozen=True)
class Plan:
    """The memory plan of a lot: where arrays live and how they are cut (runtime/scoring/plan.py).

    Sizes are in bytes; a ``budget`` of None is unlimited.  ``block`` images are loaded, compared and kept
    together; ``blocks_in_memory`` blocks are held at once of each of the two sides that are compared.  The
    cosines are the largest of each patch with each judge, of one layer.  ``decoding_bytes``, a part of
    ``vit_bytes``, is the room for images that are decoded at once; ``writing_bytes`` that for maps and
    overlays, when tokens and cosines are gone.  ``tile_bytes`` are those of files that tiles need besides.
    With a ``cluster`` this process holds neither tokens nor cosines.  Where the ViT runs ``twice``,
    ``token_bytes`` are those of the few tokens that are kept.
    """

    budget: int | None
    threads: int
    block: int
    blocks_in_memory: int
    tokens_on_disk: bool
    cosines_on_disk: bool
    token_bytes: int
    cosine_bytes: int
    workspace_bytes: int
    program_bytes: int
    vit_bytes: int
    device: DevicePlan | None = None
    decoding_bytes: int = 0
    writing_bytes: int = 0
    tile_bytes: int = 0
    cluster: ClusterPlan | None = None
    twice: bool = False

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the process: program, tokens, the ViT, then the comparison; last the writing."""
        tokens = 0 if self.tokens_on_disk or self.cluster else self.token_bytes
        cosines = 0 if self.cosines_on_disk or self.cluster else self.cosine_bytes
        scoring = tokens + max(self.vit_bytes, cosines + self.workspace_bytes)
        return self.program_bytes + max(scoring, self.writing_bytes)

    @property
    def disk_bytes(self) -> int:
        """Disk space that the files of this plan need."""
        tables = self.tokens_on_disk * self.token_bytes + self.cosines_on_disk * self.cosine_bytes
        return tables + self.tile_bytes


# ---- results ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LotImage:
    """One file of a lot.

    Attributes
    ----------
    name : str
        What results call it: its path relative to the lot, with forward slashes.  Unique in the lot.
    path : path, or RemoteFile
        Where it lies: on this machine, or below a URL.
    """

    name: str
    path: FilePath

    @property
    def local(self) -> Path:
        """Its path, for what reads files of this machine alone; TypeError for one below a URL."""
        if not isinstance(self.path, Path):
            raise TypeError(f"{self.path} is no file of this machine")
        return self.path


@dataclass(frozen=True)
class Copies:
    """Images of a lot that show the same shot.

    Attributes
    ----------
    images : tuple of str
        Their names, in the lot's order.
    same_bytes : tuple of tuples of str
        Those of them, group by group, whose files have the same bytes.
    apart : bool
        Whether they do not judge each other.
    """

    images: tuple[str, ...]
    same_bytes: tuple[tuple[str, ...], ...]
    apart: bool = False
