"""An S3 in a namespace of a node (SeaweedFS, one process), its credentials in a Secret, and a way to put files there from here."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tests.artifacts.seaweedfs import IDENTITIES, KEY, MIN_FREE_SPACE, SECRET
from tests.cluster.image import Image, write_image
from tests.cluster.story import Cluster, ready, until

from inference_cache_artifacts.manifest import FILE_NAME

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME: Final = "s3"
PORT: Final = 8333
BUCKET: Final = "models"
START_SECONDS: Final = 120.0
_IMAGE: Final = "cluster.local/weed:1"


@dataclass(frozen=True, slots=True)
class S3:
    url: str
    """For this machine."""

    def put(self, folder: str, files: Mapping[str, bytes], manifest: str) -> None:
        """`files` and the manifest beside them, below `folder` of BUCKET."""
        with _client(self.url) as client:
            for path, content in {**files, FILE_NAME: manifest.encode()}.items():
                client.put_object(Bucket=BUCKET, Key=f"{folder}/{path}", Body=content)


def s3(cluster: Cluster, load: Callable[[Path], object], namespace: str, folder: Path) -> S3:
    """Started, with BUCKET in it."""
    program = Path(sys.executable).with_name("weed")
    archive = write_image(Image(_IMAGE, files={"/weed": program}, entrypoint=["/weed"]), folder / "weed.tar")
    load(archive)
    archive.unlink()
    cluster.apply(*_objects(), namespace=namespace)
    until(START_SECONDS, "the S3 is Ready", lambda: all(map(ready, cluster.pods(namespace, f"app={NAME}"))))
    server = S3(cluster.forward(namespace, f"service/{NAME}", PORT))
    until(START_SECONDS, "the S3 can be written", lambda: _is_writable(server))
    return server


def _is_writable(server: S3) -> bool:
    """The volumes come up after the gateway."""
    try:
        with _client(server.url) as client:
            if BUCKET not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            return True
    except (BotoCoreError, ClientError):
        return False


@contextmanager
def _client(url: str) -> Iterator["S3Client"]:
    config = Config(s3={"addressing_style": "path"}, connect_timeout=10, read_timeout=60)
    client = boto3.session.Session(KEY, SECRET, region_name="us-east-1").client("s3", endpoint_url=url, config=config)
    try:
        yield client
    finally:
        client.close()


def _objects() -> list[dict[str, Any]]:
    here = ["-dir=/data", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", f"-s3.port={PORT}", "-s3.config=/etc/s3/identities.json"]
    small = ["-master.volumeSizeLimitMB=256", "-volume.max=20", "-master.electionTimeout=1s", f"-volume.minFreeSpace={MIN_FREE_SPACE}"]
    off = ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    container = {
        "name": NAME,
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "args": ["server", "-s3", *here, *small, *off],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in (("data", "/data"), ("tmp", "/tmp"), ("s3", "/etc/s3"))],
    }
    labels = {"app": NAME}
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, {"name": "s3", "configMap": {"name": NAME}}]
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    access = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    where = {"AWS_ENDPOINT_URL_S3": f"http://{NAME}:{PORT}", "AWS_S3_ADDRESSING_STYLE": "path"}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {**access, **where}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"identities.json": json.dumps(IDENTITIES)}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {"selector": labels, "ports": [{"port": PORT}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "labels": labels}, "spec": pod},
    ]
