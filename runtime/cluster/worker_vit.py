"""The ViT of a cluster: opened by its workers, as many of them as have the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ..errors import DeviceError
from ..settings import AUTO, Resources
from ..types import Bundle, DeviceSlot, FloatArray, Slot, Uploaded
from ..vit.extract import running_bytes
from .engine import WORKER_BYTES, Cluster
from .shards import Met, VitJob, meet

_COPIES = 2
"""How often the weights are in memory while a ViT is loaded."""


@dataclass
class WorkerVit:
    """The ViT that workers open for a bundle; entered, it has been opened and timed by one of them.

    It is a ``FeatureBackend`` by its names alone: what describes images is ``extraction.py``.
    """

    cluster: Cluster
    bundle: Bundle
    resources: Resources
    name: str = ""
    max_batch: int | None = None
    fills_device: bool = False
    versions: list[str] = field(default_factory=list)

    @property
    def gpus(self) -> int:
        """GPUs that a worker takes: one, where the cluster has some and the ViT may run there."""
        return int(self.cluster.gpus > 0 and self.resources.backend != "cpu")

    @property
    def memory(self) -> int:
        """Bytes that a worker takes for its ViT."""
        weights = sum(path.stat().st_size for path in self.bundle.root.glob("*") if path.is_file())
        return WORKER_BYTES + _COPIES * weights + running_bytes(self.bundle, self.resources.batch)

    @property
    def version(self) -> str:
        """The software that the last bits of the features depend on."""
        return self.versions[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks of the worker that was asked, and whether workers differ."""
        if len(self.versions) == 1:
            return self._met.notes
        return (
            *self._met.notes,
            f"the ViT ran by {' and by '.join(self.versions)}: scores may differ in their last digits from "
            "those of one machine",
        )

    @property
    def layers(self) -> int:
        """Layers whose tokens are taken, S."""
        return len(self.bundle.manifest.layers)

    @property
    def seconds_per_image(self) -> float:
        """Seconds that one worker takes for an image."""
        return self._met.seconds_per_image

    @property
    def lanes(self) -> int:
        """How many workers run the ViT at once."""
        return self.cluster.lanes(self.memory, self.job.threads, self.gpus)

    def __enter__(self) -> WorkerVit:
        if self.resources.backend not in (AUTO, "cpu") and not self.cluster.gpus:
            raise DeviceError(
                f"backend {self.resources.backend} was asked for, and the cluster has no GPU that it knows "
                "of: start its workers with ray start --num-gpus."
            )
        threads = self.cluster.threads_for(self.memory, self.gpus)
        root = self.bundle.root.resolve()
        self.job = VitJob(root, self.bundle.digest, self.resources.backend, threads, self.resources.batch)
        # All are asked, so that all load it at once.
        asked = [self.submit(meet, self.job)[0] for _ in range(self.lanes)]
        self._met: Met = self.cluster.get(asked[0])
        self.name = self._met.backend
        self.made_by(self._met.version)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it to the workers, which close it when they compare images."""

    def submit(
        self, function: Callable[..., Any], *given: Any, returns: int = 1, memory: int = 0
    ) -> list[Any]:
        """Give a task to a worker that has the room for the ViT, and ``memory`` more bytes."""
        memory += self.memory
        threads, gpus = self.job.threads, self.gpus
        return self.cluster.submit(function, *given, returns=returns, cpus=threads, gpus=gpus, memory=memory)

    def made_by(self, version: str) -> None:
        """Note the software of a worker."""
        if version not in self.versions:
            self.versions.append(version)

    def upload(self, images: FloatArray) -> FloatArray | Uploaded:
        """Refuse: workers read the images."""
        raise NotImplementedError("the images of a cluster are read by its workers")

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        """Refuse: workers run the ViT on images that they have read."""
        raise NotImplementedError("the ViT of a cluster is run by its workers")
