"""Ends a process just before its n-th operation on the names of files: a kill at each moment that matters."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

_CHANGES = frozenset({"os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR
_DONE, _KILLED = 0, 77


def killed_before(operation: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that ends at once before operation number ``operation``; False if it has fewer.

    What counts is what Python's audit events tell: making, renaming and removing, and opening to write.
    """
    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(_ending_at(operation))
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(_DONE)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (_DONE, _KILLED)
    return code == _KILLED


def _ending_at(operation: int) -> Callable[[str, tuple[Any, ...]], None]:
    left = operation

    def hook(event: str, about: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _CHANGES or (event == "open" and about[2] & _WRITES):
            left -= 1
            if left == 0:
                os._exit(_KILLED)

    return hook
