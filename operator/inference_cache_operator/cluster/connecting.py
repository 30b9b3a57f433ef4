"""Opens the client: by the pod's service account, or by a kubeconfig where there is none. Credentials are never logged."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import kopf
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"


@asynccontextmanager
async def connected(kubeconfig: Path | None) -> AsyncIterator[ApiClient]:
    """`kubeconfig` None: within the cluster. Raises kubernetes.aio.config.ConfigException."""
    configuration = Configuration()
    if kubeconfig is None:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.connection_pool_maxsize = 64
    async with ApiClient(configuration) as client:
        yield client


def kubeconfig_of(environment: Mapping[str, str] = os.environ) -> Path | None:
    """None within a cluster."""
    if environment.get(_IN_CLUSTER) and not environment.get("KUBECONFIG"):
        return None
    return Path(environment.get("KUBECONFIG") or Path.home() / ".kube" / "config")


def kopf_credentials(client: ApiClient) -> kopf.ConnectionInfo:
    """The same for kopf, which has a client of its own."""
    configuration = client.configuration
    token = str((configuration.api_key or {}).get("BearerToken", "")).removeprefix("Bearer ").removeprefix("bearer ") or None
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=token,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
