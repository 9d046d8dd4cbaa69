"""``musc-edge serve``: check images of a line over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import re
import signal
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import arguments, cli
from ..delivery_options import add_delivery, delivery
from ..drift_options import add_drift, drift_witness
from ..usage import UsageError

if TYPE_CHECKING:
    import socket

    from ...runtime.line.delivery import Delivery
    from ...runtime.line.result_log import ResultLog
    from ...runtime.line.station import Station
    from .recent import MemoryLog

COMMAND = "musc-edge serve"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_MOST_BODY = 100_000_000
_BODIES = 4
"""How many of the largest bodies may be in memory at once."""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("serve", help="check images over HTTP, with metrics and a live page")
    add = parser.add_argument
    add("--reference", action="append", required=True, metavar="[NAME=]REF",
        help="what musc-edge reference made, and what requests call it (default: the folder's name); may be "
        "given several times")  # fmt: skip
    cli.add_bundle(parser, "the bundle that the references were made with (default: as for infer); once for "
        "each if there are several", action="append", default=[])  # fmt: skip
    cli.add_alpha(parser)
    add("-o", "--out", help="folder for the log of all results (default: the last ones, in memory alone)")
    net = parser.add_argument_group("network")
    add = net.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
    add("--port", type=_port, default=8080, help="(default: 8080; 0 for any that is free)")
    add("--token-file", metavar="FILE", help="file with the token that requests must have")
    add("--no-token", action="store_true", help="let everybody in who reaches --host")
    add("--tls-cert", metavar="FILE", help="certificate (PEM), for https")
    add("--tls-key", metavar="FILE", help="its key (PEM), without a password")
    add("--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which requests may call this machine, beside its own and its addresses")  # fmt: skip
    limits = parser.add_argument_group("limits")
    add = limits.add_argument
    add("--queue", type=arguments.positive, default=16, metavar="N",
        help="images that may wait or be in work at once; more are told to come again "
        "(default: 16)")  # fmt: skip
    add("--max-body", type=arguments.memory, default=_MOST_BODY, metavar="SIZE",
        help="largest file of an image (default: 100M)")  # fmt: skip
    add("--time-out", type=_seconds, default=60.0, metavar="SECONDS",
        help="for a body to come, for an image to be checked, for an answer to be read "
        "(default: 60)")  # fmt: skip
    add("--log-json", action="store_true", help="write the line for each request as JSON")
    add_drift(parser)
    add_delivery(parser)
    cli.add_resources(parser)
    cli.add_common(parser, 4, 5, 6, 7)
    parser.set_defaults(run=_serve, usage_error=parser.error)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds such as 60") from error
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0.1 to 3600 seconds")
    return value


def _serve(args: argparse.Namespace) -> int:
    from ..extras import need

    need(COMMAND)
    from ...runtime.line.result_log import ResultLog
    from .recent import MemoryLog

    named = name_references(args.reference)
    token = _access(args)
    cli.clean_up_on_sigterm()
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(args.host, args.port))
        log = stack.enter_context(ResultLog(args.out)) if args.out else MemoryLog()
        stations = _open(stack, args, named, log)
        deliveries = stack.enter_context(delivery(args, log))
        return _run(args, stations, log, listener, token, deliveries)


def name_references(given: list[str]) -> dict[str, Path]:
    """Return the folders by name; UsageError if one has no name, or two have the same."""
    named: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            name, folder = Path(text).resolve().name, text
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"--reference {text}: {name!r} cannot be the name of a reference. Give one of letters, "
                f"digits and ._- before it: --reference NAME={folder or 'REF'}"
            )
        if name in named:
            raise UsageError(
                f"two references are called {name}: {named[name]} and {folder}. Give one another name: "
                f"--reference NAME={folder}"
            )
        named[name] = Path(folder)
    return named


def _access(args: argparse.Namespace) -> str | None:
    """Return the token; UsageError if the options do not fit each other, or a file cannot be used."""
    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key belong together: give both, or none for http.")
    if args.tls_cert:
        _check_certificate(args.tls_cert, args.tls_key)
    if args.token_file and args.no_token:
        raise UsageError("--token-file and --no-token contradict each other: give one.")
    if not args.token_file and not args.no_token and not _is_local(args.host):
        raise UsageError(
            f"--host {args.host} lets other machines in: give --token-file FILE with a token that they must "
            "have, or --no-token to let everybody in."
        )
    return read_token(Path(args.token_file)) if args.token_file else None


def read_token(path: Path) -> str:
    """Read the token, which is all of the file without the ends of lines; UsageError if it is none."""
    from ..._files import read_regular

    least = 16
    try:
        token = read_regular(path, limit=4096).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise UsageError(f"--token-file {path} cannot be read: {said}.") from error
    if len(token) < least or not re.fullmatch(r"[!-~]+", token):
        raise UsageError(
            f"--token-file {path} has no usable token: expected {least} or more characters in one line, "
            f"without blanks. Make one with: openssl rand -hex 32 > {path}"
        )
    return token


def _check_certificate(cert: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"--tls-cert {cert} and --tls-key {key} cannot be used: {error.strerror or error}. Expected a "
            "certificate and its key, without a password, as PEM."
        ) from error


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    import socket

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise UsageError(
            f"{host}, port {port}, cannot be listened at: {error.strerror or error}. Choose others with "
            "--host and --port."
        ) from error


def _open(
    stack: ExitStack, args: argparse.Namespace, named: dict[str, Path], log: ResultLog | MemoryLog
) -> dict[str, Station]:
    """Open all references, with one ViT for each bundle."""
    from ...runtime.errors import ReferenceFolderError
    from ...runtime.line.station import Station
    from ...runtime.reference.checker import Checker
    from ...runtime.reference.files import open_reference
    from ...runtime.vit.bundle import find_bundle, open_bundle

    bundles = [open_bundle(find_bundle(given)) for given in args.bundle or [None]]
    checkers: dict[str, Checker] = {}
    stations = {}
    for name, folder in named.items():
        reference = open_reference(folder)
        fitting = [bundle for bundle in bundles if bundle.digest == reference.manifest.bundle]
        if not fitting and len(bundles) > 1:
            raise ReferenceFolderError(
                f"the reference {folder} was made with another bundle ({reference.manifest.backbone}, "
                f"{reference.manifest.bundle[:12]}...) than the {len(bundles)} given. Give its own with "
                "-b too."
            )
        bundle = fitting[0] if fitting else bundles[0]
        resources, share = cli.resources(args), checkers.get(bundle.digest)
        checker = stack.enter_context(Checker(reference, bundle, args.alpha, resources, share))
        checkers.setdefault(bundle.digest, checker)
        monitors = drift_witness(args, reference, log)
        for monitor in monitors:
            for note in monitor.notes:
                cli.show_error_line(f"{name}: {note}")
        stations[name] = Station(name, checker, log, monitors)
    return stations


def _run(
    args: argparse.Namespace,
    stations: dict[str, Station],
    log: ResultLog | MemoryLog,
    listener: socket.socket,
    token: str | None,
    deliveries: tuple[Delivery, ...],
) -> int:
    """Serve until SIGTERM or SIGINT."""
    from ...runtime.memory import give_back_large_blocks, memory_left
    from .bodies import Intake
    from .server import Settings, serve

    give_back_large_blocks()
    room = memory_left(cli.resources(args).budget)
    scheme = "https" if args.tls_cert else "http"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    settings = Settings(
        token,
        tuple(args.allow_host),
        args.queue,
        room,
        args.time_out,
        args.log_json,
        (args.tls_cert, args.tls_key) if args.tls_cert else None,
        deliveries,
    )
    intake = Intake(args.max_body, args.time_out, max(_BODIES * args.max_body, room // 4))
    for station in stations.values():
        for note in (*station.checker.notes, *station.checker.warnings):
            cli.show_error_line(f"{station.name}: {note}")
    if token and scheme == "http" and not _is_local(args.host):
        cli.show_error_line(
            "the token is sent in the clear: give --tls-cert and --tls-key, or serve behind TLS"
        )

    def started() -> None:
        cli.show(f"{', '.join(stations)}: serving at {scheme}://{shown}:{port}/")

    # uvicorn raises the signals that ended it once more; they have done their work.
    ended_by: list[int] = []
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, frame: ended_by.append(number))
    code = serve(stations, log, listener, intake, settings, started)
    return cli.INTERRUPTED if code == 0 and signal.SIGINT in ended_by else code
