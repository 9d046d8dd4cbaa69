"""Compile with NVRTC, NVIDIA's compiler as a shared library, through ctypes; needs no toolkit and no GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

from .cuda_source import MAIN
from .errors import KernelError

_PACKAGES = ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc")
_SYSTEM = ("libnvrtc.so.12", "libnvrtc.so.13", "/usr/local/cuda/lib64/libnvrtc.so")


def installed_nvrtc() -> Iterator[Nvrtc]:
    """Yield the NVRTC libraries from PyPI, then those of the system, as far as they can be loaded."""
    seen = set()
    for path, release in [*_from_packages(), *((path, None) for path in _SYSTEM)]:
        try:
            compiler = Nvrtc(path, release)
        except (OSError, AttributeError, KernelError):  # no such library, or one from before CUDA 11.2
            continue
        if compiler.handle not in seen:  # a library that is loaded answers to its plain name too
            seen.add(compiler.handle)
            yield compiler


def _from_packages() -> Iterator[tuple[str, str]]:
    """Yield path and version of each package's library."""
    for package in _PACKAGES:
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith("libnvrtc.so"):
                yield str(file.locate()), metadata.version(package)


class Nvrtc:
    """A ``Compiler``: the library at ``path``.

    ``release`` is its version where a package states it more precisely than the library does.
    """

    def __init__(self, path: str, release: str | None = None) -> None:
        self._library = ctypes.CDLL(path)
        self.handle = self._library._handle
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.name = f"NVRTC {release or f'{major.value}.{minor.value}'}"
        self.major = major.value
        self.arches = self._supported()

    def compile(self, arch: str, options: tuple[str, ...], files: Mapping[str, bytes]) -> tuple[bytes, str]:
        """Compile ``files`` into a cubin, with the report of ptxas; KernelError with the compiler's log."""
        given = [f"-arch={arch}", "--ptxas-options=-v", *options]
        strings = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
        with self._program(files) as program:
            code = self._library.nvrtcCompileProgram(program, len(given), strings)
            log = self._get("nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace").strip()
            if code:
                raise KernelError(log or self._error(code))
            return self._get("nvrtcGetCUBIN", program), log

    @contextmanager
    def _program(self, files: Mapping[str, bytes]) -> Iterator[ctypes.c_void_p]:
        """Make a program from the source in memory, so that what is compiled is what was hashed."""
        headers = {name: content for name, content in files.items() if name != MAIN}
        strings = ctypes.c_char_p * len(headers)
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            files[MAIN],
            MAIN.encode(),
            len(headers),
            strings(*headers.values()),
            strings(*(name.encode() for name in headers)),
        )
        try:
            yield program
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _get(self, function: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{function}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(function, program, buffer)
        return buffer.raw

    def _supported(self) -> frozenset[str]:
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        return frozenset(f"sm_{number}" for number in numbers)

    def _call(self, function: str, *arguments: object) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            raise KernelError(f"{function}: {self._error(code)}")

    def _error(self, code: int) -> str:
        text: bytes = self._library.nvrtcGetErrorString(code)
        return text.decode()
