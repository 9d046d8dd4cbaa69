"""pycuda from its source, where a toolkit is but no network and perhaps no driver.

Linking asks for libcuda.so, which comes with the driver and not with every toolkit; an empty library of that
name serves as well, for the driver's own is found when pycuda is imported.  Of pycuda's dependencies
pycuda.driver needs numpy alone, so nothing else is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

DRIVER = "libcuda.so.1"


def cuda_root() -> Path:
    """Folder of the CUDA toolkit: $CUDA_HOME, that of the nvcc on the PATH, or /usr/local/cuda."""
    named, nvcc = os.environ.get("CUDA_HOME"), shutil.which("nvcc")
    places = [Path(named)] if named else []
    places += [Path(nvcc).resolve().parent.parent] if nvcc else []
    for root in (*places, Path("/usr/local/cuda")):
        if (root / "include/cuda.h").exists():
            return root
    raise FileNotFoundError("no include/cuda.h found: set CUDA_HOME to the folder of a CUDA toolkit.")


def install_pycuda(source: Path | None, folder: Path) -> Path:
    """The folder, within ``folder``, that pycuda can be imported from; made if it is not there.

    Parameters
    ----------
    source : a wheel, an sdist, or a folder with one of them; None to ask pip's index for the sdist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = _package(source, folder)
    site = folder / f"{sys.implementation.cache_tag}-{found.name}"
    if not (site / "pycuda/driver.py").exists():
        wheel = found if found.suffix == ".whl" else _build_wheel(found, folder)
        _pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    return site


def install_wheels(wheels: list[Path], site: Path) -> Path:
    """Put wheels, without what they need, into the folder ``site``, and return it."""
    _pip("install", "--no-deps", "--no-index", "--upgrade", "--target", str(site), *map(str, wheels))
    return site


def _package(source: Path | None, folder: Path) -> Path:
    """The wheel or sdist."""
    if source is None:
        source = folder
        if not list(folder.glob("pycuda-*.tar.gz")):
            options = "--no-deps", "--no-build-isolation", "--no-binary=pycuda"
            _pip("download", *options, "-d", str(folder), "pycuda")
    if source.is_file():
        return source
    tag = sys.implementation.cache_tag.replace("cpython-", "cp")
    found = sorted(source.glob(f"pycuda-*-{tag}-*.whl")) or sorted(source.glob("pycuda-*.tar.gz"))
    if not found:
        raise FileNotFoundError(f"{source} is no wheel or sdist of pycuda, nor a folder with one for {tag}.")
    return found[-1]


def _build_wheel(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tree = folder / sdist.name.removesuffix(".tar.gz")
    links = folder / "link"
    links.mkdir(exist_ok=True)
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "/dev/null", f"-Wl,-soname,{DRIVER}"]
    subprocess.run([*command, "-o", str(links / "libcuda.so")], check=True)
    settings = {
        "CUDA_ROOT": str(cuda_root()),
        "CUDA_ENABLE_CURAND": False,
        "CUDADRV_LIB_DIR": [str(links)],
        "CXXFLAGS": ["-O1", "-w"],  # half the time of the build, and nothing that is measured
        # Named again, because an empty library is not noted as needed where --as-needed is the default.
        "LDFLAGS": [f"-L{links}", "-Wl,--no-as-needed", "-lcuda"],
    }
    (tree / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(tree))
    return max(folder.glob("pycuda-*.whl"), key=lambda path: path.stat().st_mtime)


def _pip(*arguments: str) -> None:
    """Run pip; what it printed is shown only if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
