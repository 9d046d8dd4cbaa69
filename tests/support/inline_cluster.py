"""A cluster without processes: each task is done at once, here, by the code that a worker runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from musc_edge.runtime.cluster import pairs
from musc_edge.runtime.cluster.engine import Cluster, Node
from musc_edge.runtime.cluster.shards import close_vit


class InlineCluster(Cluster):
    """Objects are pickled, as they are on their way to a worker; references are numbers."""

    def __init__(
        self, cpus: int = 2, memory: int = 1 << 40, *others: Node, gpus: int = 0, store: int = 1 << 40
    ) -> None:
        self.objects: dict[Reference, Any] = {}
        ray = SimpleNamespace(put=self._put, wait=self._wait)
        super().__init__(ray, "here", (Node("here", cpus, gpus, memory, store), *others), reserved=0)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def submit(
        self, function: Callable[..., Any], *given: Any, returns: int = 1, **resources: int
    ) -> list[Any]:
        """Call the function; as many references as it has results."""
        values = [self.get(each) if isinstance(each, Reference) else _copied(each) for each in given]
        result = function(*values)
        results = [result] if returns == 1 else list(result)
        assert len(results) == returns
        return [self._put(each) for each in results]

    def get(self, references: Any) -> Any:
        """What a reference refers to."""
        if isinstance(references, list):
            return [self.get(each) for each in references]
        return pickle.loads(self.objects[references])

    def _put(self, value: Any) -> Reference:
        reference = Reference()
        self.objects[reference] = pickle.dumps(value)
        return reference

    def _wait(self, references: Iterable[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        # The last first: tasks of a real cluster end in any order.
        waiting = list(references)
        return waiting[-1:], waiting[:-1]


class Reference:
    """Of an object."""


def _copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def leave_worker() -> None:
    """Give back what a worker keeps until its process ends; that of the tests goes on."""
    close_vit()
    pairs.one_thread.close()
    pairs._limit_threads.cache_clear()
