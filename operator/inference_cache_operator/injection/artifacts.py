"""What a pod of one version needs on its disk: the resource's artifacts, read and named. Pure; `fetching` brings them into the pod."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inference_cache_artifacts.errors import ArtifactError
from inference_cache_artifacts.manifest import Manifest, read_manifest
from inference_cache_artifacts.names import tree_name
from inference_cache_operator.injection.container import at
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.resource import Resource


@dataclass(frozen=True, slots=True)
class Artifact:
    sources: tuple[str, ...]
    """Mirrors, in the order in which they are asked."""
    version: str
    mount_path: str
    tree: str
    """What the store calls it."""
    manifest: Manifest | None
    """As the resource says it; None: it lies beside the files."""
    manifest_sha256: str
    """Empty: not pinned."""
    secret: str
    """Empty: no credentials are given."""
    secret_key: str
    """Empty: all of the Secret's keys."""
    verify: bool

    @property
    def digest(self) -> str:
        """Names what vLLM finds, and where."""
        return f"{self.mount_path}={self.tree}"


def artifacts_of(resource: Resource, version: str) -> tuple[Artifact, ...]:
    """Raises Refusal."""
    given = resource.artifacts_of(version)
    if given is None:
        raise Refusal(
            "ArtifactsUnknown",
            f"nothing says which artifacts version {version!r} has, which the pod's template names: name {resource.version!r} there, "
            "or leave the annotation out",
        )
    return tuple(_artifact(each, version, f"spec.model.artifacts[{index}]") for index, each in enumerate(given))


def digests(artifacts: Iterable[Artifact]) -> tuple[str, ...]:
    return tuple(each.digest for each in artifacts)


def trees_in_use(resource: Resource) -> frozenset[str]:
    """Of the spec's version and of the active one."""
    return frozenset(each.tree for version in {resource.version, resource.active_version or ""} for each in _readable(resource, version))


def _readable(resource: Resource, version: str) -> tuple[Artifact, ...]:
    try:
        return artifacts_of(resource, version)
    except Refusal:
        return ()


def _artifact(raw: Mapping[str, Any], version: str, where: str) -> Artifact:
    sources = tuple(str(each) for each in (raw.get("sources") or [raw.get("source") or ""]))
    verify = raw.get("verify") != "None"
    try:
        manifest = _manifest(raw)
        sha256 = "" if manifest is not None else str(at(raw, "manifest", "sha256") or "").lower()
        tree = tree_name(sources, version, sha256 if manifest is None else manifest.digest, verified=verify)
    except ArtifactError as error:
        raise Refusal("Artifacts", f"{where}: {error}: correct it") from None
    return Artifact(
        sources=sources,
        version=version,
        mount_path=str(raw.get("mountPath") or ""),
        tree=tree,
        manifest=manifest,
        manifest_sha256=sha256,
        secret=str(at(raw, "credentialsSecretRef", "name") or ""),
        secret_key=str(at(raw, "credentialsSecretRef", "key") or ""),
        verify=verify,
    )


def _manifest(raw: Mapping[str, Any]) -> Manifest | None:
    manifest = raw.get("manifest")
    return read_manifest(manifest) if at(manifest, "files") is not None else None
