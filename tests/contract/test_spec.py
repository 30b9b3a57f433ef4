import ipaddress
import json
from typing import Any

import pytest

from inference_cache_contract.canonical import Normalize
from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.errors import SpecErrors
from inference_cache_contract.spec import Category, Spec, parse_spec, show_spec
from inference_cache_contract.spec_invalidation import Channels, Pubsub, RedisStream

WHOLE: dict[str, Any] = {
    "selector": {"matchLabels": {"app": "vllm"}},
    "mode": "Bypass",
    "model": {
        "name": "acme-faq",
        "version": "v1.2.3",
        "artifacts": [
            {
                "source": "s3://models/acme-faq/v1.2.3/",
                "mountPath": "/models/acme-faq",
                "manifest": {"sha256": "00"},
                "credentialsSecretRef": {"name": "s3"},
                "verify": "Required",
            }
        ],
    },
    "exact": {"ttl": "1h", "normalize": {"whitespace": True, "case": False, "punctuation": True}},
    "semantic": {
        "mode": "Shadow",
        "threshold": 0.9,
        "maxWrongRate": 0,
        "calibration": {"judge": "Off"},
        "ttl": "2h",
        "endpoints": ["chat", "completions"],
        "embedder": {"name": "other", "path": "/models/other", "deadline": "20ms"},
        "categories": [{"name": "pricing", "match": {"header": {"X-Category": "pricing"}}, "threshold": 0.97}],
    },
    "sampling": {"cache": "All"},
    "tenancy": {
        "from": "Authorization",
        "claim": "sub",
        "verifiedBy": "Gateway",
        "revalidate": "1m",
        "keySecretRef": {"name": "k", "key": "k"},
    },
    "store": {
        "memory": {"maxBytes": "1Gi"},
        "redis": {"urlSecretRef": {"name": "redis", "key": "url"}, "encryptionKeySecretRef": {"name": "redis", "key": "aes"}},
    },
    "features": {"upstream": "http://feast:6566", "ttl": "5m"},
    "invalidation": {
        "lease": "1s",
        "redisStream": {"stream": "events", "group": "g", "deadLetters": "bad", "claimAfter": "1m"},
        "pubsub": {"channels": {"userActivity": "activity"}},
        "kafka": {
            "bootstrapServers": "kafka-0:9093,[::1]:9093",
            "topics": {"modelUpdates": "models.v1"},
            "deadLetters": "bad",
            "tls": True,
            "caFile": "/tls/ca.pem",
            "mechanism": "SCRAM-SHA-256",
            "usernameSecretRef": {"name": "kafka", "key": "user"},
            "passwordSecretRef": {"name": "kafka", "key": "password"},
        },
    },
    "prefixCaching": {"enabled": True},
    "stale": {"whileRevalidate": "30s", "ifError": "1h"},
    "answers": {"length": "All", "toolCalls": "Never", "contentFilter": "Exact"},
    "limits": {"bodyBytes": "2Mi", "upstreamIdleTimeout": "5m", "connections": 1000},
    "trustedHeaders": {"from": ["10.0.0.0/8", "::1"]},
    "rollout": {"trigger": "Auto", "flush": "AfterRollout", "retain": "0s", "drainTimeout": "120s"},
    "interception": {"type": "PortSwap"},
    "sidecar": {"image": "x", "resources": {"limits": {}}, "adminTokenSecretRef": {"name": "t", "key": "t"}},
}


def problems_of(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        parse_spec(raw)
    return list(map(str, caught.value.problems))


def test_an_empty_spec_has_the_documented_defaults() -> None:
    spec = parse_spec({})
    assert spec == Spec()
    assert (spec.mode, spec.semantic.mode, spec.semantic.threshold, spec.semantic.max_wrong_rate) == ("Enabled", "Serve", 0.92, 0.02)
    assert (spec.exact.ttl_seconds, spec.semantic.ttl_seconds, spec.tenancy.revalidate_seconds) == (86400, 604800, 300)
    assert spec.exact.normalize == Normalize(whitespace=True, case=True, punctuation=True)
    assert spec.semantic.endpoints == (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES)
    assert spec.semantic.embedder.deadline_seconds == 0.05
    assert (spec.sampling.cache, spec.tenancy.source, spec.trusted_headers.sources) == ("Unstated", "Authorization", ())
    assert spec.store.memory.max_bytes == 512 * 2**20
    assert (spec.answers.length, spec.answers.tool_calls, spec.answers.content_filter) == ("Exact", "Exact", "Never")
    assert (spec.limits.body_bytes, spec.limits.answer_bytes, spec.limits.header_bytes) == (2**20, 2**21, 2**16)
    assert spec.limits.upstream_idle_seconds == 0
    assert spec.limits.connections is None
    assert (spec.invalidation.redis_stream, spec.invalidation.pubsub, spec.invalidation.kafka) == (None, None, None)


def test_a_source_of_events_is_read_where_its_section_stands_if_only_empty() -> None:
    invalidation = parse_spec({"invalidation": {"redisStream": {}, "pubsub": None}}).invalidation
    assert invalidation.redis_stream == RedisStream("inference-cache:events", None, "inference-cache:events:dead-letters", 30)
    assert invalidation.pubsub is None


def test_the_whole_resource_is_read() -> None:
    spec = parse_spec(WHOLE)
    assert spec.model.version == "v1.2.3"
    assert spec.exact.normalize == Normalize(whitespace=True, case=False, punctuation=True)
    assert spec.semantic.endpoints == (Endpoint.CHAT, Endpoint.COMPLETIONS)
    assert spec.semantic.max_wrong_rate == 0
    assert spec.semantic.embedder.path == "/models/other"
    assert spec.semantic.categories == (Category("pricing", (("x-category", "pricing"),), 0.97, None),)
    assert (spec.tenancy.claim, spec.tenancy.verified_by) == ("sub", "Gateway")
    assert (spec.stale.while_revalidate_seconds, spec.stale.if_error_seconds) == (30, 3600)
    assert spec.invalidation.redis_stream == RedisStream("events", "g", "bad", 60)
    assert spec.invalidation.pubsub == Pubsub(Channels("model_updates", "activity", "kb_updates"))
    kafka = spec.invalidation.kafka
    assert kafka is not None
    assert (kafka.bootstrap_servers, kafka.group, kafka.topics.model_updates) == ("kafka-0:9093,[::1]:9093", None, "models.v1")
    assert spec.answers.tool_calls == "Never"
    assert (spec.limits.connections, spec.limits.upstream_idle_seconds) == (1000, 300)
    assert spec.trusted_headers.sources == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize("raw", [pytest.param({}, id="defaults"), pytest.param(WHOLE, id="everything-set")])
def test_what_is_shown_reads_as_the_same_spec(raw: dict[str, Any]) -> None:
    spec = parse_spec(raw)
    assert parse_spec(json.loads(json.dumps(show_spec(spec)))) == spec


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param({"semantic": {"threshold": 1.4}}, "spec.semantic.threshold: 1.4 is not in [0, 1]", id="out-of-range"),
        pytest.param({"semantic": {"threshold": float("nan")}}, "spec.semantic.threshold: nan is not in [0, 1]", id="not-a-number"),
        pytest.param({"semantic": {"threshold": True}}, "spec.semantic.threshold: True is not a number", id="boolean-as-number"),
        pytest.param({"semantic": {"threshold": "0.9"}}, "spec.semantic.threshold: '0.9' is not a number", id="text-as-number"),
        pytest.param({"semantic": {"treshold": 1}}, "spec.semantic.treshold: unknown field; did you mean threshold?", id="misspelt"),
        pytest.param({"zzz": 1}, "spec.zzz: unknown field", id="unknown"),
        pytest.param({"exact": []}, "spec.exact: [] is not a mapping", id="list-as-section"),
        pytest.param({"exact": {"normalize": {"case": "yes"}}}, "spec.exact.normalize.case: 'yes' is neither true nor false", id="boolean"),
        pytest.param({"model": {"version": 1.1}}, "spec.model.version: 1.1 is not a text; put it in quotes", id="version-as-number"),
        pytest.param({"mode": "enabled"}, "spec.mode: 'enabled' is not one of Enabled, Bypass", id="choice"),
        pytest.param({"mode": ["Enabled"]}, "spec.mode: ['Enabled'] is not one of Enabled, Bypass", id="choice-as-list"),
        pytest.param({"mode": False}, "spec.mode: False is not one of Enabled, Bypass", id="choice-as-boolean"),
        pytest.param(
            {"semantic": {"endpoints": ["embeddings"]}},
            "spec.semantic.endpoints: 'embeddings' is not one of chat, responses, messages, completions",
            id="endpoint-without-prompt",
        ),
        pytest.param({"limits": {"connections": 0}}, "spec.limits.connections: 0 is less than 1", id="no-connections"),
        pytest.param(
            {"store": {"memory": {"maxBytes": "lots"}}},
            "spec.store.memory.maxBytes: 'lots' is not a quantity of bytes such as 512Mi, 1G or 1048576",
            id="bytes",
        ),
        pytest.param({"semantic": {"categories": [{}]}}, "spec.semantic.categories[0].name: is required", id="category-without-name"),
        pytest.param(
            {"semantic": {"categories": [{"name": "a"}, {"name": "a"}]}},
            "spec.semantic.categories[1].name: 'a' stands there twice",
            id="category-twice",
        ),
        pytest.param(
            {"semantic": {"categories": [{"name": "a", "match": {"path": "x"}}]}},
            "spec.semantic.categories[0].match: {'path': 'x'} is not a match such as {header: {x-category: pricing}}",
            id="category-match",
        ),
        pytest.param({"tenancy": {"from": "Shared", "claim": "sub"}}, "spec.tenancy.claim: partitions callers", id="claim-and-shared"),
        pytest.param({"tenancy": {"claim": "sub"}}, "spec.tenancy.verifiedBy: must be Gateway where claim is set", id="unverified-claim"),
        pytest.param({"rollout": {"trigger": "Now"}}, "spec.rollout.trigger: 'Now' is not one of Auto, Manual", id="operator-choice"),
        pytest.param({"rollout": {"foo": 1}}, "spec.rollout.foo: unknown field", id="operator-field"),
        pytest.param({"store": {"redis": {"url": "x"}}}, "spec.store.redis.url: unknown field", id="operator-field-in-a-section"),
        pytest.param({"model": {"artifacts": [{"src": "x"}]}}, "spec.model.artifacts[0].src: unknown field", id="operator-list"),
        pytest.param({7: 1}, "spec.7: unknown field", id="key-that-is-no-text"),
        pytest.param({"invalidation": {"kafka": {}}}, "spec.invalidation.kafka.bootstrapServers: is required", id="kafka-nowhere"),
        pytest.param(
            {"invalidation": {"kafka": {"bootstrapServers": "kafka"}}},
            "spec.invalidation.kafka.bootstrapServers: 'kafka' is not HOST:PORT",
            id="kafka-without-port",
        ),
        pytest.param(
            {"invalidation": {"kafka": {"bootstrapServers": "k:1", "topics": {"kbUpdates": "a topic"}}}},
            "spec.invalidation.kafka.topics.kbUpdates: 'a topic' is not a topic's name",
            id="kafka-topic",
        ),
        pytest.param(
            {"invalidation": {"kafka": {"bootstrapServers": "k:1", "caFile": "/ca.pem"}}},
            "spec.invalidation.kafka.caFile: is of use with tls: true alone",
            id="kafka-file-without-tls",
        ),
        pytest.param(
            {"invalidation": {"kafka": {"bootstrapServers": "k:1", "tls": True, "keyFile": "/key.pem"}}},
            "spec.invalidation.kafka.keyFile: is of use with certificateFile alone",
            id="kafka-key-without-certificate",
        ),
        pytest.param(
            {"invalidation": {"pubsub": {"channels": {"kbUpdates": "user_activity"}}}},
            "spec.invalidation.pubsub.channels.kbUpdates: 'user_activity' is the name of userActivity too",
            id="channel-twice",
        ),
        pytest.param(
            {"invalidation": {"redisStream": {"claimAfter": "100ms"}}},
            "spec.invalidation.redisStream.claimAfter: is less than 1s",
            id="claims-too-early",
        ),
        pytest.param(
            {"invalidation": {"redisStream": {"stream": "s", "deadLetters": "s"}}},
            "spec.invalidation.redisStream.deadLetters: is the stream itself",
            id="dead-letters-in-the-stream",
        ),
    ],
)
def test_a_problem_is_told_with_its_path(raw: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(raw)
    assert found.startswith(problem)


def test_a_network_with_host_bits_is_refused_with_the_reason() -> None:
    (found,) = problems_of({"trustedHeaders": {"from": ["10.0.0.1/8"]}})
    assert found.startswith("spec.trustedHeaders.from: '10.0.0.1/8' is not a network")
    assert "host bits" in found


def test_all_problems_are_told_at_once() -> None:
    found = problems_of({"mode": "x", "exact": {"ttl": "soon"}, "semantic": {"threshold": 2, "categories": [{"ttl": -1}]}, "rollout": 3})
    assert [problem.partition(":")[0] for problem in found] == [
        "spec.mode",
        "spec.exact.ttl",
        "spec.semantic.threshold",
        "spec.semantic.categories[0].name",
        "spec.semantic.categories[0].ttl",
        "spec.rollout",
    ]


def test_a_problem_quotes_a_huge_value_in_short() -> None:
    (found,) = problems_of({"mode": "x" * 100_000})
    assert len(found) < 300


def test_an_unquoted_off_that_became_false_is_off() -> None:
    spec = parse_spec({"semantic": {"mode": False, "calibration": {"judge": False}}})
    assert spec.semantic.mode == "Off"


def test_zero_is_a_value_and_null_is_none() -> None:
    spec = parse_spec(
        {"exact": {"ttl": "0s"}, "semantic": {"threshold": 0, "ttl": None}, "stale": None, "store": {"memory": {"maxBytes": 0}}}
    )
    assert (spec.exact.ttl_seconds, spec.semantic.threshold, spec.store.memory.max_bytes) == (0, 0, 0)
    assert (spec.semantic.ttl_seconds, spec.stale) == (604800, Spec().stale)
