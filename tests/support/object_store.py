"""A server of S3 objects in a thread of this process (moto), and what fills its buckets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from musc_edge.runtime import remote

BUCKET = "plant"


Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass
class Faults:
    """An application that notes requests as "GET /bucket/key", and answers some itself.

    ``status`` says with what it does, by the request: a status of HTTP such as "403 Forbidden", or None.
    """

    application: Application
    requests: list[str] = field(default_factory=list)
    status: Callable[[str], str | None] = lambda request: None

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        if status := self.status(request):
            start(status, [("Content-Length", "0")])
            return [b""]
        return self.application(environ, start)


@dataclass(frozen=True)
class ObjectStore:
    """A server with one bucket; ``environment`` is what its clients need."""

    address: str
    client: Any
    faults: Faults

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead the AWS libraries to the server."""
        return environment_for(self.address)

    @contextmanager
    def found(self) -> Iterator[None]:
        """Within the block the AWS libraries of this process find the server."""
        with pytest.MonkeyPatch.context() as patched:
            for name, value in self.environment.items():
                patched.setenv(name, value)
            yield

    def put(self, key: str, content: bytes) -> None:
        """Put an object into the bucket."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Put the files of a folder below a prefix; returns its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=BUCKET, Key=key)


def environment_for(address: str) -> dict[str, str]:
    """Variables for a server at an address, with credentials that any of moto takes."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Serve an empty bucket."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from s3fs import S3FileSystem
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    faults = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        client = boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="key",
            aws_secret_access_key="secret",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        yield ObjectStore(address, client, faults)
    finally:
        # Clients that are kept would go on asking this server.
        remote._opened.cache_clear()
        S3FileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()
        server.server_close()
