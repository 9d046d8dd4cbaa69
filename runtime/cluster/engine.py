"""An opened cluster: what it has, and how tasks are given to it and their results waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from ..._numbers import ceil_div, counted
from ..errors import DeviceError, LotError, MuscEdgeError
from ..memory import size_text

WORKER_BYTES = 300_000_000
"""Memory of a worker process with numpy, numba and ONNX Runtime, before it does anything."""
STORE_SHARE, WORKERS_SHARE = 0.35, 0.5
"""Shares of a memory budget for a cluster on this machine, at most: for its objects and for its workers."""
RETRIES = 20
"""How often a task is given to another worker if its own is lost."""

_TURN = 0.5  # seconds: a signal just before one long wait would go unheard
Key = TypeVar("Key")
Job = tuple[Key, Sequence[Any]]
"""A task that was submitted, and the references to its results; the first is its receipt."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its processors, GPUs, and bytes of memory for tasks and for objects."""

    name: str
    cpus: int
    gpus: int
    memory: int
    store: int


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes
    ----------
    ray : the module.
    where : for messages.
    nodes : those that were there when it was opened.
    reserved : bytes of this process's memory budget that the cluster has.
    """

    ray: Any
    where: str
    nodes: tuple[Node, ...]
    reserved: int

    @classmethod
    def of(cls, ray: Any, where: str, reserved: int) -> Cluster:
        """Look at the cluster that Ray is connected to; DeviceError if it has no processors."""
        nodes = tuple(_node(each) for each in ray.nodes() if each["Alive"])
        cluster = cls(ray, where, nodes, reserved)
        if not cluster.cpus:
            raise DeviceError(f"the cluster {where} has no processors: start workers with ray start.")
        return cluster

    @property
    def cpus(self) -> int:
        """Processors of all machines: tasks that compare images at once."""
        return sum(node.cpus for node in self.nodes)

    @property
    def ahead(self) -> int:
        """Tasks that are given to it at once: a few for each processor, which bounds memory."""
        return 3 * self.cpus + 2

    @property
    def gpus(self) -> int:
        """GPUs of all machines."""
        return sum(node.gpus for node in self.nodes)

    def __str__(self) -> str:
        gpus = f" and {counted(self.gpus, 'GPU')}" if self.gpus else ""
        machines = counted(len(self.nodes), "machine")
        return f"a cluster {self.where}: {machines}, {counted(self.cpus, 'processor')}{gpus}"

    def threads_for(self, memory: int, gpus: int = 0) -> int:
        """Threads of a task that takes so many bytes, so that as many as fit keep all processors busy.

        Raises
        ------
        LotError
            If no machine has so much.
        """
        able = [node for node in self.nodes if node.memory >= memory and node.gpus >= gpus and node.cpus]
        if not able:
            most = max(node.memory for node in self.nodes)
            raise LotError(
                f"a worker needs {size_text(memory)} of memory, and no machine of the cluster has more than "
                f"{size_text(most)} for its workers. {self._more(memory - most, WORKERS_SHARE, '--memory')}."
            )
        return min(ceil_div(node.cpus, _fitting(node, memory, gpus)) for node in able)

    def require_store(self, size: int, instead: str = "") -> None:
        """Raise LotError unless each machine has the memory for the objects of one task, ``size`` bytes.

        ``instead`` says what else a user can do.
        """
        # Ray would wait for ever for what does not fit.
        for node in self.nodes:
            if node.cpus and (missing := size - node.store) > 0:
                raise LotError(
                    f"a task takes {size_text(size)} of objects, and {node.name} has {size_text(node.store)} "
                    f"for them. {self._more(missing, STORE_SHARE, '--object-store-memory')}{instead}."
                )

    def _more(self, missing: int, share: float, option: str) -> str:
        """Say how a machine gets so many bytes more for what has a ``share`` of a budget."""
        if self.reserved:
            return f"Raise --memory-budget by {size_text(with_slack(int(missing / share)))}"
        return f"Give it more by ray start {option}"

    def holds(self, size: int) -> bool:
        """Whether this is one machine, with memory for ``size`` bytes of objects and as much again."""
        return len(self.nodes) == 1 and size <= self.nodes[0].store // 2

    def over_network(self, size: int) -> int:
        """Return how many of ``size`` bytes go over a network, at most: none on one machine."""
        return size if len(self.nodes) > 1 else 0

    def lanes(self, memory: int, threads: int, gpus: int = 0) -> int:
        """How many such tasks run at once."""
        fitting = [min(_fitting(node, memory, gpus), node.cpus // threads) for node in self.nodes]
        return max(1, sum(fitting))

    def submit(
        self,
        function: Callable[..., Any],
        *given: Any,
        returns: int = 1,
        cpus: int = 1,
        gpus: int = 0,
        memory: int = 0,
    ) -> list[Any]:
        """Give a task to the cluster; returns the references to its results, ``returns`` of them."""
        options = {
            "num_returns": returns,
            "num_cpus": cpus,
            "num_gpus": gpus,
            "memory": memory,
            "max_retries": RETRIES,
        }
        references = _as_task(self.ray, function).options(**options).remote(*given)
        return [references] if returns == 1 else references

    def ask_all(self, function: Callable[..., Any], *given: Any) -> Any:
        """Give a task to every processor, and return what the first says.

        All are asked, so that all have imported what they need when the work comes.
        """
        asked = [self.submit(function, *given)[0] for _ in range(self.cpus)]
        return self.get(asked[0])

    def get(self, references: Any) -> Any:
        """Wait for results and return them, raising here what a task raised there."""
        if isinstance(references, list):
            return [self.get(each) for each in references]
        while not self.ray.wait([references], timeout=_TURN)[0]:
            pass
        with_cause = self.ray.exceptions
        try:
            return self.ray.get(references)
        except with_cause.RayTaskError as error:
            if isinstance(error.cause, MuscEdgeError):
                raise error.cause from error
            raise DeviceError(f"a task failed on the cluster: {error.cause!r}") from error
        except with_cause.RayError as error:
            raise DeviceError(
                f"the cluster lost a task {RETRIES} times, or its result, or what it has on this machine: "
                f"{type(error).__name__}: {str(error).splitlines()[0]} With --resume the same command goes "
                "on from what was done."
            ) from error

    def finished(
        self, jobs: Iterable[Job[Key]], ahead: int | None = None
    ) -> Iterator[tuple[Key, Any, Sequence[Any]]]:
        """Yield each job's key, its receipt and its other references, as the tasks end.

        At most ``ahead`` are submitted and not yet taken, by default those of ``Cluster.ahead``.
        """
        most = ahead or self.ahead
        running: dict[Any, tuple[Key, Sequence[Any]]] = {}
        source = iter(jobs)
        more = True
        while more or running:
            while more and len(running) < most:
                job = next(source, None)
                if job is None:
                    more = False
                else:
                    running[job[1][0]] = job
            if not running:
                return
            ready, _ = self.ray.wait(list(running), num_returns=1, timeout=_TURN)
            for reference in ready:
                key, references = running.pop(reference)
                yield key, self.get(reference), references[1:]

    def in_order(
        self, jobs: Iterable[Job[int]], ahead: int | None = None
    ) -> Iterator[tuple[int, Any, Sequence[Any]]]:
        """As ``finished``, for jobs numbered from their first on without gaps, in their order."""
        waiting: dict[int, tuple[Any, Sequence[Any]]] = {}
        expected: int | None = None
        numbers: list[int] = []

        def noted() -> Iterator[Job[int]]:
            for job in jobs:
                numbers.append(job[0])
                yield job

        for key, receipt, references in self.finished(noted(), ahead):
            expected = numbers[0] if expected is None else expected
            waiting[key] = receipt, references
            while expected in waiting:
                yield expected, *waiting.pop(expected)
                expected += 1


def with_slack(size: int) -> int:
    """Return a little more: the memory of a process differs from run to run, and sizes are shown rounded."""
    return size + size // 20 + 10_000_000


@lru_cache
def _as_task(ray: Any, function: Callable[..., Any]) -> Any:
    """Make the function a task of Ray, once: each time it would be given to every worker again."""
    return ray.remote(function)


def _fitting(node: Node, memory: int, gpus: int) -> int:
    """How many tasks of so many bytes and GPUs a machine runs at once."""
    limits = [node.cpus, *([node.memory // memory] if memory else []), *([node.gpus // gpus] if gpus else [])]
    return max(0, min(limits))


def _node(found: dict[str, Any]) -> Node:
    has = found["Resources"]
    return Node(
        str(found["NodeManagerHostname"]),
        int(has.get("CPU", 0)),
        int(has.get("GPU", 0)),
        int(has.get("memory", 0)),
        int(has.get("object_store_memory", 0)),
    )
