"""The fields of the resource's spec that belong to the operator and the artifacts: known and checked, not read by the sidecar.

One file serves as the resource's `spec` and as the sidecar's `--spec`, so the sidecar must know them, and refuse a misspelt one.
"""

from collections.abc import Mapping
from typing import Any, Final

from inference_cache_contract.errors import SpecErrors, SpecProblem, shown
from inference_cache_contract.spec_kinds import ANYTHING, BOOLEAN, DURATION, NAME, Kind, choice
from inference_cache_contract.spec_reader import Accepted, read_value


def _object(**fields: Kind[Any]) -> Kind[object]:
    """A mapping with these fields and no others."""

    def parse(raw: object) -> object:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{shown(raw)} is not a mapping")
        problems = [SpecProblem(f".{name}", "unknown field", unknown=True) for name in raw if name not in fields]
        for name, kind in fields.items():
            if raw.get(name) is not None:
                read_value(kind, raw[name], f".{name}", problems)
        if problems:
            raise SpecErrors(problems)
        return raw

    return Kind("object", "", parse)


def _list_of(kind: Kind[Any]) -> Kind[object]:
    def parse(raw: object) -> object:
        if not isinstance(raw, list | tuple):
            raise ValueError(f"{shown(raw)} is not a list")
        problems: list[SpecProblem] = []
        for index, item in enumerate(raw):
            read_value(kind, item, f"[{index}]", problems)
        if problems:
            raise SpecErrors(problems)
        return raw

    return Kind("list", "", parse)


_SECRET = _object(name=NAME, key=NAME)
_ARTIFACT = _object(
    source=ANYTHING,
    sources=_list_of(NAME),
    mountPath=NAME,
    manifest=_object(sha256=NAME, files=_list_of(_object(path=NAME, size=ANYTHING, sha256=NAME))),
    credentialsSecretRef=_SECRET,
    verify=choice("Required", "None"),
)

ACCEPTED: Final[Accepted] = {
    "spec": {
        "selector": _object(matchLabels=ANYTHING, matchExpressions=ANYTHING),
        "prefixCaching": _object(enabled=BOOLEAN),
        "rollout": _object(
            trigger=choice("Auto", "Manual"), flush=choice("AfterRollout", "Immediate"), retain=DURATION, drainTimeout=DURATION
        ),
        "interception": _object(type=choice("PortSwap")),
        "sidecar": _object(image=NAME, resources=ANYTHING, adminTokenSecretRef=_SECRET),
    },
    "spec.model": {
        "artifacts": _list_of(_ARTIFACT),
        "artifactStorage": _object(persistentVolumeClaim=_object(claimName=NAME)),
    },
    "spec.semantic": {"calibration": _object(judge=choice("Off", "Upstream"), budget=ANYTHING)},
    "spec.tenancy": {"keySecretRef": _SECRET},
    "spec.store.redis": {"urlSecretRef": _SECRET, "encryptionKeySecretRef": _SECRET},
    "spec.invalidation.kafka": {"usernameSecretRef": _SECRET, "passwordSecretRef": _SECRET},
}
