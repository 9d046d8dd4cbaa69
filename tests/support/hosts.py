"""Two machines on one: network namespaces, with a cable between them whose bytes are counted; needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A network namespace, and its address on the cable."""

    name: str
    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one there."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there; CalledProcessError if it fails."""
        return subprocess.run(
            self.command(command), env=environment, check=True, capture_output=True, text=True
        )

    def sent(self) -> int:
        """Bytes that it has sent over the cable."""
        found = self.run(["cat", f"/sys/class/net/{_cable(self.name)}/statistics/tx_bytes"])
        return int(found.stdout)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts; they are gone behind the block."""
    number = os.getpid() % 10_000
    hosts = Host(f"mh{number}a", "10.213.7.1"), Host(f"mh{number}b", "10.213.7.2")
    with ExitStack() as stack:
        for host in hosts:
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "del", host.name)
        first, second = (_cable(host.name) for host in hosts)
        _ip("link", "add", first, "type", "veth", "peer", "name", second)
        for host in hosts:
            _ip("link", "set", _cable(host.name), "netns", host.name)
            host.run(["ip", "address", "add", f"{host.address}/24", "dev", _cable(host.name)])
            for device in ("lo", _cable(host.name)):
                host.run(["ip", "link", "set", device, "up"])
        yield hosts


def _cable(name: str) -> str:
    return f"{name}-v"


def _ip(*given: str) -> None:
    subprocess.run(["ip", *given], check=True, capture_output=True)


def can_make_hosts() -> bool:
    """Whether this user may make network namespaces here."""
    name = f"mh{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except (OSError, subprocess.CalledProcessError):
        return False
    return Path("/var/run/netns").is_dir()
