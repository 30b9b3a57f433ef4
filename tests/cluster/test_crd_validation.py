"""What the API server refuses of a resource, with the field's path and a sentence that tells what to do."""

from typing import Any, Final

import pytest
from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.crd import Refused, apply, install, try_out

pytestmark = pytest.mark.services
SELECTOR: Final = {"matchLabels": {"app": "vllm"}}
SHARED: Final = {"redis": {"urlSecretRef": {"name": "redis"}}}


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Api:
    install(control_plane)
    return control_plane.api


FILE = {"path": "weights/a b.safetensors", "size": 1 << 40, "sha256": "0" * 64}


def artifacts(*given: dict[str, Any], version: str = "v1") -> dict[str, Any]:
    return {"model": {"version": version, "artifacts": list(given)}}


def memory(amount: Any, store: Any = None) -> dict[str, Any]:
    sidecar = {"sidecar": {"resources": {"limits": {"memory": amount}}}}
    return sidecar if store is None else {**sidecar, "store": {"memory": {"maxBytes": store}}}


def resources(**given: dict[str, Any]) -> dict[str, Any]:
    return {"sidecar": {"resources": given}}


def stream(**given: Any) -> dict[str, Any]:
    return {"store": SHARED, "invalidation": {"redisStream": given}}


def kafka(**given: Any) -> dict[str, Any]:
    return {"invalidation": {"kafka": {"bootstrapServers": "kafka:9092", **given}}}


BAD: Final = [
    pytest.param({"selector": {}}, "spec.selector", "must name at least one label", id="empty-selector"),
    pytest.param({"selector": {"matchLabels": {}}}, "spec.selector", "must name at least one label", id="selector-of-nothing"),
    pytest.param({"selector": None}, "spec.selector", "Required value", id="no-selector"),
    pytest.param({"selector": {"matchLabels": {"app": "a b"}}}, "spec.selector.matchLabels.app", "should match", id="no-label-value"),
    pytest.param(
        {"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
        "spec.selector.matchExpressions[0].values",
        "In and NotIn need values",
        id="in-nothing",
    ),
    pytest.param(
        {"selector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["a"]}]}},
        "spec.selector.matchExpressions[0].values",
        "Exists and DoesNotExist take none",
        id="exists-with-values",
    ),
    pytest.param({"mode": "Of"}, "spec.mode", 'supported values: "Enabled", "Bypass"', id="unknown-mode"),
    pytest.param({"model": {"version": 1.1}}, "spec.model.version", "must be of type string", id="version-that-is-a-number"),
    pytest.param({"model": {"version": "a\tb"}}, "spec.model.version", "should match", id="version-with-a-tab"),
    pytest.param(
        {"model": {"artifacts": [{"source": "s3://b/", "mountPath": "/m"}]}},
        "spec.model.version",
        "is required with artifacts",
        id="artifacts-of-no-version",
    ),
    pytest.param(artifacts({"source": "s3://b/"}), "spec.model.artifacts[0].mountPath", "Required value", id="artifact-without-folder"),
    pytest.param(
        artifacts({"source": "s3://b/", "mountPath": "m"}), "spec.model.artifacts[0].mountPath", "should match '^/", id="relative-folder"
    ),
    pytest.param(
        artifacts({"source": "s3://b/", "mountPath": "/m/../etc"}),
        "spec.model.artifacts[0].mountPath",
        "must not contain ..",
        id="folder-upwards",
    ),
    pytest.param(
        artifacts({"source": "s3://b/", "mountPath": "/m"}, {"source": "s3://c/", "mountPath": "/m"}),
        "spec.model.artifacts[1]",
        "Duplicate value",
        id="one-folder-twice",
    ),
    pytest.param(artifacts({"mountPath": "/m"}), "spec.model.artifacts[0]", "either source or sources", id="artifact-without-source"),
    pytest.param(
        artifacts({"mountPath": "/m", "source": "s3://b/", "sources": ["s3://c/"]}),
        "spec.model.artifacts[0]",
        "either source or sources",
        id="source-and-sources",
    ),
    pytest.param(
        artifacts({"mountPath": "/m", "source": "ftp://b/"}), "spec.model.artifacts[0].source", "should match '^(s3|https)", id="ftp"
    ),
    pytest.param(
        artifacts({"source": "s3://b/", "mountPath": "/m", "manifest": {"sha256": "0" * 64, "files": [FILE]}}),
        "spec.model.artifacts[0].manifest",
        "either sha256 or files",
        id="two-manifests",
    ),
    pytest.param(
        artifacts({"source": "s3://b/", "mountPath": "/m", "manifest": {"files": [{**FILE, "path": "/etc/passwd"}]}}),
        "spec.model.artifacts[0].manifest.files[0].path",
        "should match",
        id="absolute-file",
    ),
    pytest.param(
        artifacts({"source": "s3://b/", "mountPath": "/m", "manifest": {"files": [{"path": "a", "sha256": "0" * 64}]}}),
        "spec.model.artifacts[0].manifest.files[0].size",
        "Required value",
        id="file-without-size",
    ),
    pytest.param(
        {"model": {"artifactStorage": {"persistentVolumeClaim": {}}}},
        "spec.model.artifactStorage.persistentVolumeClaim.claimName",
        "Required value",
        id="claim-without-name",
    ),
    pytest.param(
        artifacts({"mountPath": "/m", "source": "s3://b/", "manifest": {"sha256": "abc"}}),
        "spec.model.artifacts[0].manifest.sha256",
        "should match",
        id="short-digest",
    ),
    pytest.param({"exact": {"ttl": "7d"}}, "spec.exact.ttl", "must be a duration such as 24h", id="days"),
    pytest.param({"exact": {"ttl": "999999h"}}, "spec.exact.ttl", "of at most 100 years", id="ttl-of-a-century"),
    pytest.param({"exact": {"ttl": "-5m"}}, "spec.exact.ttl", "should match", id="negative-ttl"),
    pytest.param({"exact": {"ttl": -5}}, "spec.exact.ttl", "greater than or equal to 0", id="negative-number-of-seconds"),
    pytest.param({"exact": {"ttl": True}}, "spec.exact.ttl", "must be of type integer,string", id="true-ttl"),
    pytest.param({"semantic": {"threshold": 1.4}}, "spec.semantic.threshold", "less than or equal to 1", id="threshold-above-1"),
    pytest.param({"semantic": {"threshold": "0.9"}}, "spec.semantic.threshold", "must be of type number", id="threshold-in-quotes"),
    pytest.param({"semantic": {"mode": True}}, "spec.semantic.mode", '"Serve", "Shadow", "Off"', id="semantic-on"),
    pytest.param({"semantic": {"mode": "off"}}, "spec.semantic.mode", '"Serve", "Shadow", "Off"', id="lower-case-off-in-quotes"),
    pytest.param({"semantic": {"endpoints": ["embeddings"]}}, "spec.semantic.endpoints[0]", "Unsupported value", id="no-semantic-endpoint"),
    pytest.param(
        {"semantic": {"categories": [{"name": "a"}, {"name": "a"}]}}, "spec.semantic.categories[1]", "Duplicate value", id="category-twice"
    ),
    pytest.param(
        {"semantic": {"categories": [{"name": "a", "match": {"header": {}}}]}},
        "spec.semantic.categories[0].match.header",
        "at least 1 properties",
        id="match-of-nothing",
    ),
    pytest.param(
        {"tenancy": {"from": "Shared", "claim": "sub", "verifiedBy": "Gateway"}},
        "spec.tenancy.claim",
        "partitions callers, which from: Shared does not",
        id="shared-by-claim",
    ),
    pytest.param({"tenancy": {"claim": "sub"}}, "spec.tenancy.verifiedBy", "an unverified token proves nothing", id="unverified-claim"),
    pytest.param({"store": {"memory": {"maxBytes": "2GB"}}}, "spec.store.memory.maxBytes", "must be a size such as 512Mi", id="no-bytes"),
    pytest.param({"limits": {"bodyBytes": "1Kb"}}, "spec.limits.bodyBytes", "must be a size such as 512Mi", id="no-bytes-of-a-body"),
    pytest.param(
        {"store": {"redis": {"encryptionKeySecretRef": {"name": "keys"}}}},
        "spec.store.redis.encryptionKeySecretRef",
        "is of use with urlSecretRef alone",
        id="encryption-of-no-store",
    ),
    pytest.param({"store": {"redis": {"urlSecretRef": {}}}}, "spec.store.redis.urlSecretRef.name", "Required value", id="secret-unnamed"),
    pytest.param(
        {"invalidation": {"redisStream": {}}},
        "spec.invalidation.redisStream",
        "needs spec.store.redis.urlSecretRef",
        id="stream-of-no-store",
    ),
    pytest.param(
        {"invalidation": {"pubsub": {}}}, "spec.invalidation.pubsub", "needs spec.store.redis.urlSecretRef", id="pubsub-of-no-store"
    ),
    pytest.param(stream(claimAfter="500ms"), "spec.invalidation.redisStream.claimAfter", "is less than 1s", id="claimed-at-once"),
    pytest.param(stream(claimAfter=0), "spec.invalidation.redisStream.claimAfter", "is less than 1s", id="claimed-after-0"),
    pytest.param(
        stream(stream="s", deadLetters="s"),
        "spec.invalidation.redisStream.deadLetters",
        "the stream itself",
        id="dead-letters-to-itself",
    ),
    pytest.param(
        {"store": SHARED, "invalidation": {"pubsub": {"channels": {"kbUpdates": "user_activity"}}}},
        "spec.invalidation.pubsub.channels.kbUpdates",
        "is the name of modelUpdates or userActivity too",
        id="one-channel-twice",
    ),
    pytest.param(
        kafka(topics={"userActivity": "model_updates"}),
        "spec.invalidation.kafka.topics.userActivity",
        "is the name of modelUpdates too",
        id="one-topic-twice",
    ),
    pytest.param({"invalidation": {"kafka": {}}}, "spec.invalidation.kafka.bootstrapServers", "Required value", id="kafka-without-brokers"),
    pytest.param(kafka(bootstrapServers="kafka"), "spec.invalidation.kafka.bootstrapServers", "should match", id="broker-without-port"),
    pytest.param(kafka(caFile="/ca"), "spec.invalidation.kafka.caFile", "is of use with tls: true alone", id="authority-without-tls"),
    pytest.param(
        kafka(tls=True, keyFile="/k"), "spec.invalidation.kafka.keyFile", "is of use with certificateFile alone", id="key-of-no-certificate"
    ),
    pytest.param(
        kafka(usernameSecretRef={"name": "kafka"}),
        "spec.invalidation.kafka",
        "both usernameSecretRef and passwordSecretRef",
        id="user-without-password",
    ),
    pytest.param({"features": {"upstream": "http://feast/x"}}, "spec.features.upstream", "should match", id="feature-server-with-path"),
    pytest.param({"features": {"views": [{"name": "v"}]}}, "spec.features.views[0].ttl", "Required value", id="view-without-ttl"),
    pytest.param({"limits": {"connections": 0}}, "spec.limits.connections", "greater than or equal to 1", id="no-connections"),
    pytest.param(
        {"trustedHeaders": {"from": ["10.1.0.0/8"]}}, "spec.trustedHeaders.from[0]", "must be a network such as 10.0.0.0/8", id="host-bits"
    ),
    pytest.param({"trustedHeaders": {"from": ["all"]}}, "spec.trustedHeaders.from[0]", "must be a network", id="no-network"),
    pytest.param(
        {"rollout": {"flush": "Immediate", "retain": "1h"}},
        "spec.rollout.retain",
        "must be 0s with flush: Immediate",
        id="flushed-at-once-and-kept",
    ),
    pytest.param({"rollout": {"drainTimeout": "25h"}}, "spec.rollout.drainTimeout", "is longer than 24h", id="drain-of-days"),
    pytest.param({"interception": {"type": "Mesh"}}, "spec.interception.type", "Unsupported value", id="unknown-interception"),
    pytest.param(
        memory("512Mi"),
        "spec.sidecar.resources.limits.memory",
        "must be more than spec.store.memory.maxBytes",
        id="memory-of-the-store-alone",
    ),
    pytest.param(memory("1Gi", store="1Gi"), "spec.sidecar.resources.limits.memory", "must be more than", id="memory-as-the-store"),
    pytest.param(memory("1G", store=2**30), "spec.sidecar.resources.limits.memory", "must be more than", id="memory-in-other-units"),
    pytest.param(
        resources(requests={"cpu": 2}, limits={"cpu": "1500m"}),
        "spec.sidecar.resources.requests.cpu",
        "is more than the limit",
        id="asks-more-than-its-limit",
    ),
    pytest.param(
        resources(requests={"memory": "256Mi"}),
        "spec.sidecar.resources.requests.memory",
        "must be more than spec.store.memory.maxBytes",
        id="memory-asked-for-that-is-the-limit-too",
    ),
    pytest.param(resources(limits={"memory": "2 GB"}), "spec.sidecar.resources.limits.memory", "should match", id="no-amount"),
]


@pytest.mark.parametrize(("spec", "field", "message"), BAD)
def test_a_bad_spec_is_refused_with_the_fields_path(api: Api, spec: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        try_out(api, {"selector": SELECTOR, **spec})
    assert refusal.value.says(field, message), refusal.value.problems


GOOD: Final = [
    pytest.param({}, id="a-selector-is-enough"),
    pytest.param({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}, id="selected-by-expression"),
    pytest.param({"semantic": {"mode": "Off"}}, id="off-in-quotes"),
    pytest.param({"semantic": {"mode": False, "calibration": {"judge": False}}}, id="off-as-yaml-reads-it"),
    pytest.param({"exact": {"ttl": 300}, "stale": {"ifError": 0}}, id="seconds-as-numbers"),
    pytest.param({"exact": {"ttl": "1h30m"}, "limits": {"connectTimeout": "1.5s", "keepalive": "250ms"}}, id="durations"),
    pytest.param({"store": {"memory": {"maxBytes": 2**30}}, "limits": {"bodyBytes": "10k", "headerBytes": "1K"}}, id="bytes"),
    pytest.param({"trustedHeaders": {"from": ["10.0.0.0/8", "::1", "fd00::/8", "192.0.2.1"]}}, id="networks-and-addresses"),
    pytest.param({"rollout": {"flush": "Immediate", "retain": 0}}, id="flushed-at-once"),
    pytest.param(memory("1Gi"), id="memory-beyond-the-store"),
    pytest.param(memory("8Ki", store="2K"), id="memory-where-the-unit-is-not-kubernetes-own"),
    pytest.param(memory(2**30), id="memory-as-a-number"),
    pytest.param(resources(requests={"memory": "256Mi"}, limits={"memory": "1Gi"}), id="memory-asked-for-below-its-limit"),
    pytest.param(artifacts({"source": "s3://b/", "mountPath": "/m", "manifest": {"sha256": "0" * 64}}), id="artifact"),
    pytest.param(artifacts({"source": "s3://b/", "mountPath": "/m", "manifest": {"files": [FILE] * 1000}}), id="manifest-of-a-thousand"),
    pytest.param({"model": {"version": "v1", "artifactStorage": {"persistentVolumeClaim": {"claimName": "models"}}}}, id="claim"),
    pytest.param({"semantic": None, "store": {"redis": None}}, id="nothing-where-a-section-would-be"),
]


@pytest.mark.parametrize("spec", GOOD)
def test_a_good_spec_is_taken(api: Api, spec: dict[str, Any]) -> None:
    try_out(api, {"selector": SELECTOR, **spec})


def test_a_misspelt_field_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match=r'unknown field \\?"spec\.semantic\.treshold'):
        try_out(api, {"selector": SELECTOR, "semantic": {"treshold": 0.9}})


def test_a_name_that_others_cannot_be_made_of_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="at most 63 characters"):
        try_out(api, {"selector": SELECTOR}, name="a" * 64)


TAKEN_AWAY: Final = [
    pytest.param({"model": {"name": "acme-faq"}}, id="removed"),
    pytest.param({"model": {"version": ""}}, id="emptied"),
    pytest.param({}, id="removed-with-its-section"),
]


@pytest.mark.parametrize("after", TAKEN_AWAY)
def test_a_version_once_given_stays_given(api: Api, namespace: str, after: dict[str, Any]) -> None:
    apply(api, namespace, {"selector": SELECTOR, "model": {"name": "acme-faq", "version": "v1"}})
    with pytest.raises(Refused) as refusal:
        apply(api, namespace, {"selector": SELECTOR, **after})
    assert refusal.value.says("spec.model.version", "cannot be taken away again")


def test_everything_else_may_change(api: Api, namespace: str) -> None:
    apply(api, namespace, {"selector": SELECTOR, "model": {"version": "v1"}, "interception": {"type": "PortSwap"}})
    changed = {
        "selector": {"matchLabels": {"app": "other"}},
        "model": {"name": "other", "version": "v2"},
        "semantic": {"embedder": {"name": "other"}, "mode": "Shadow"},
        "tenancy": {"from": "Shared"},
        "store": SHARED,
    }
    assert apply(api, namespace, changed)["metadata"]["generation"] == 2
