"""``musc-export keygen`` and ``musc-export sign``: whose a bundle is (docs/signing.md)."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._signing_keys import PASSPHRASE
from . import cli
from .usage import UsageError

if TYPE_CHECKING:
    from .._signing_keys import PrivateKey


def add_keygen(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("keygen", help="make a pair of keys, to sign bundles")
    add = parser.add_argument
    add("-o", "--out", type=Path, required=True, metavar="KEY.pem",
        help="file of the private key; the public one is written beside it, as KEY.pub.pem")  # fmt: skip
    add("--passphrase", action="store_true",
        help=f"encrypt the private key: asks for the passphrase, unless ${PASSPHRASE} has one")  # fmt: skip
    cli.add_common(parser, 4, 5, 7)
    parser.set_defaults(run=_keygen, interrupted="there are both keys, or none")


def add_sign(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("sign", help="sign a bundle, with the kernels and engines that are in it")
    add = parser.add_argument
    add("bundle", metavar="BUNDLE")
    add("--key", type=Path, required=True, metavar="KEY.pem",
        help="file of the private key, of ed25519, by musc-export keygen or openssl genpkey; for one that is "
        f"encrypted the passphrase is asked for, or ${PASSPHRASE}")  # fmt: skip
    cli.add_common(parser, 4, 5, 7)
    parser.set_defaults(run=_sign, interrupted="signatures that were written stay: sign again")


PARSERS = (add_keygen, add_sign)


def _keygen(args: argparse.Namespace) -> int:
    from .._signing_keys import new_key, short_id
    from ..runtime.errors import OutputError, signature_errors

    cli.clean_up_on_sigterm()
    if not os.path.isdir(args.out.parent):  # noqa: PTH112  (Path's raises for a name that is too long)
        raise UsageError(f"-o: there is no folder {args.out.parent} to write keys into.")
    passphrase = os.environ.get(PASSPHRASE) or (_ask(args.out, twice=True) if args.passphrase else None)
    try:
        with signature_errors(), cli.without_interrupts():
            key = new_key(args.out, passphrase)
    except OSError as error:
        raise OutputError(
            f"{error.filename or args.out} cannot be written: {error.strerror}. Choose another name with -o."
        ) from error
    if args.json:
        cli.show(
            json.dumps({"private": str(args.out), "public": str(key.path), "key": key.raw.hex()}, indent=2)
        )
        return 0
    cli.show(
        f"private key {args.out}{', encrypted' if passphrase else ''}: keep it where only you can read it\n"
        f"public key {key.path} ({short_id(key.raw)}): for the devices\n"
        f"Next: musc-export sign BUNDLE --key {args.out}"
    )
    return 0


def _sign(args: argparse.Namespace) -> int:
    from .._signing_keys import public_path, short_id
    from ..export.signing import sign_bundle

    cli.clean_up_on_sigterm()
    key = _private_key(args.key)
    signed = sign_bundle(args.bundle, key)
    if args.json:
        content = {
            "bundle": args.bundle,
            "key": key.raw.hex(),
            "signed": [str(path) for path in signed.files],
        }
        cli.show(json.dumps({**content, "left_out": signed.left_out}, indent=2))
        return 0
    lines = [f"signed {path}" for path in signed.files] + [f"NOT SIGNED {each}" for each in signed.left_out]
    lines.append(
        f"by {short_id(key.raw)}. Next, with the public key: musc-edge infer LOT_DIR -b {args.bundle} "
        f"--require-signature {public_path(args.key)}"
    )
    cli.show("\n".join(lines))
    return 0


def _private_key(path: Path) -> PrivateKey:
    from .._files import read_regular
    from .._signing_keys import is_encrypted, read_private_key
    from ..runtime.errors import signature_errors

    with suppress(OSError):  # what cannot be looked at cannot be read either: said below
        if not path.exists():
            raise UsageError(f"--key: there is no {path}: make a key with: musc-export keygen -o {path}")
    passphrase = os.environ.get(PASSPHRASE)
    with signature_errors():
        try:
            encrypted = is_encrypted(read_regular(path))
        except OSError:
            encrypted = False  # the error that follows says it
        return read_private_key(path, passphrase or (_ask(path) if encrypted else None))


def _ask(path: Path, twice: bool = False) -> str:
    """Ask for a passphrase on the terminal; UsageError if there is none."""
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask for the passphrase of {path} on: set ${PASSPHRASE}.")
    given = getpass.getpass(f"passphrase of {path}: ")
    if not given or (twice and getpass.getpass("again: ") != given):
        raise UsageError("the passphrase is empty, or was not the same the second time.")
    return given
