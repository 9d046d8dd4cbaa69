"""Find the blocks of a ViT by its structure, whoever exported it and whatever its tensors are called.

The tokens run along a residual stream, to which every block adds what its attention and its MLP make of it:

    x -> x + attention(norm(x)) -> x + mlp(norm(x)) -> ... -> norm

Each "+" is an Add of two tensors of which one is computed from the other.  Adds that take up each other's
result are a chain, and the longest chain is the stream.  A block begins with an Add whose branch holds a
Softmax, and ends before the next of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx

from .dependence import inputs_of, value_dependent

_SAME = frozenset({"Identity", "Cast", "Dropout"})
"""Operators whose output is their input, in another type at most."""
_SELECT = _SAME | {"Gather", "Slice", "Squeeze", "Reshape", "Transpose"}
"""Operators that take tokens from the stream, or bring them into another form."""
_ATTENTION = frozenset({"Softmax", "Attention", "MultiHeadAttention"})
_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


@dataclass(frozen=True)
class Stream:
    """A residual stream: the tensor (B,T,C) after each block, and the norms (B,T,C) or (B,C) behind the last.

    A norm behind it takes all tokens or some, such as CLS alone.
    """

    blocks: tuple[str, ...]
    norms: tuple[str, ...]


@dataclass(frozen=True)
class _Sum:
    """An Add to the stream; ``before`` is what it adds to, ``depth`` its number in the chain."""

    before: str
    depth: int
    attends: bool


def find_streams(graph: onnx.GraphProto) -> list[Stream]:
    """Return the longest residual streams of a graph: one if it is a single ViT, none if it is no ViT."""
    search = _Search(graph)
    sums: dict[str, _Sum] = {}
    for node in graph.node:
        if node.op_type in ("Add", "Sum") and (found := search.sum_at(node, sums)):
            sums[node.output[0]] = found
    longest = max((each.depth for each in sums.values()), default=0)
    chains = [_chain(sums, name) for name, each in sums.items() if each.depth == longest]
    streams = [Stream(_blocks(sums, chain), search.norms_behind(chain[-1])) for chain in chains]
    return [stream for stream in streams if stream.blocks]


def _chain(sums: dict[str, _Sum], last: str) -> list[str]:
    """Return the names of the Adds up to ``last``, in order."""
    names = [last]
    while names[-1] in sums:
        names.append(sums[names[-1]].before)
    return names[-2::-1]


def _blocks(sums: dict[str, _Sum], chain: list[str]) -> tuple[str, ...]:
    """Return the last Add of each block."""
    blocks: list[str] = []
    for name in chain:
        if sums[name].attends:
            blocks.append(name)
        elif blocks:  # what comes before any attention is no block
            blocks[-1] = name
    return tuple(blocks)


class _Search:
    """A graph with what its tensors are made by and used by."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._maker = {name: node for node in graph.node for name in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in inputs_of(node):
                self._users[name].append(node)
        self._varying = value_dependent(graph)

    def sum_at(self, node: onnx.NodeProto, sums: dict[str, _Sum]) -> _Sum | None:
        """Return the Add of ``node`` if it adds to a stream; ``sums`` are those before it."""
        if len(node.input) != 2 or not self._varying.issuperset(node.input):
            return None
        found = []
        for base, branch in (node.input, node.input[::-1]):
            before = self._origin(base)
            operators = self._between(before, branch)
            if operators:
                depth = sums[before].depth + 1 if before in sums else 1
                found.append(_Sum(before, depth, not _ATTENTION.isdisjoint(operators)))
        return max(found, key=lambda each: each.depth, default=None)

    def norms_behind(self, last: str) -> tuple[str, ...]:
        """Return the norms of the tensor ``last``, or of tokens that are taken from it."""
        found, waiting = [], [last]
        for name in waiting:
            found += self._norms_of(name)
            selecting = (node for node in self._users[name] if node.op_type in _SELECT)
            waiting += [node.output[0] for node in selecting if node.input[0] == name]
        return tuple(found)

    def _origin(self, name: str) -> str:
        """Return the tensor that ``name`` is a copy of."""
        while name in self._maker and self._maker[name].op_type in _SAME:
            name = self._maker[name].input[0]
        return name

    def _between(self, start: str, end: str) -> set[str]:
        """Return the operators on the ways from ``start`` to ``end``; none if there is no way."""
        seen, waiting, reached = {start}, [end], False
        operators = set()
        for name in waiting:
            reached |= name == start
            if name in seen or name not in self._maker:
                continue
            seen.add(name)
            operators.add(self._maker[name].op_type)
            waiting += self._varying.intersection(inputs_of(self._maker[name]))
        return operators if reached else set()

    def _norms_of(self, name: str) -> list[str]:
        """Return the outputs of norms of ``name``, which are one node each or the nodes they are made of."""
        users = [user for user in self._users[name] if user.op_type in _NORMS and user.input[0] == name]
        if users:
            return [str(user.output[0]) for user in users]
        mean = {user.output[0] for user in self._users[name] if user.op_type == "ReduceMean"}
        centred = [user for user in self._users[name] if user.op_type == "Sub" and user.input[1] in mean]
        if len(centred) != 1:
            return []
        result = str(centred[0].output[0])
        for step in ("Div", "Mul", "Add"):  # by the deviation, and with the norm's weights
            users = [user for user in self._users[result] if user.op_type == step]
            if len(users) == 1:
                result = str(users[0].output[0])
        return [result]
