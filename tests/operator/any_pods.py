"""Pods of all kinds, for Hypothesis: what the API server may hand to a webhook, and a little more."""

from typing import Any

from hypothesis import strategies as st
from tests.operator.goldens import DEFAULTS, WITH_AGENT, resource

from inference_cache_contract import pod as names
from inference_cache_operator.injection.fetching import ARTIFACTS_ANNOTATION

Pod = dict[str, Any]
PORTS = st.sampled_from([80, 8000, 8001, 8080, 9180, 18000, 31000, 65535, 1])
NAMES = st.sampled_from(["vllm", "main", "a", "http", "metrics", "istio-proxy", "inference-cache"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
IMAGES = st.sampled_from(["vllm/vllm-openai:v0.11.0", "registry:5000/team/vllm@sha256:01", "example.org/base", "", "lmcache/vllm-openai"])
WORDS = st.one_of(
    st.sampled_from(["--port", "--port=8001", "8000", "--model", "m", "serve", "vllm", "-m", "vllm.entrypoints.openai.api_server", "--"]),
    st.sampled_from(["--host=::", "--host", "0.0.0.0", "$(P)", "$(SECRET)", "$$(P)", "--uds=/x", "--config=/c", "sh", "-c", "env", "A=b"]),
    st.sampled_from(
        ["vllm serve m --port 8000", "vllm serve $P \\\n --x\n", "exec vllm serve", "vllm serve m; b", "python3", "--enable_prefix_caching"]
    ),
    TEXTS,
)
COMMANDS = st.one_of(
    st.sampled_from(
        [["vllm", "serve", "m"], ["python", "-m", "vllm.entrypoints.openai.api_server"], ["sh", "-c"], ["sh", "-c", "vllm serve m"]]
    ),
    st.lists(WORDS, max_size=4),
)
ACTIONS = st.one_of(
    st.builds(lambda port: {"httpGet": {"path": "/health", "port": port}}, PORTS | NAMES),
    st.builds(lambda port: {"tcpSocket": {"port": port}}, PORTS | NAMES),
    st.builds(lambda port: {"grpc": {"port": port}}, PORTS),
    st.builds(lambda words: {"exec": {"command": words}}, st.lists(WORDS, max_size=3)),
)


def fields(**each: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of them may be missing, or null."""
    return st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in each.items()})


PRE_STOPS = st.sampled_from([{"sleep": {"seconds": 5}}, {"exec": {"command": ["true"]}}])
PROTOCOLS = st.sampled_from(["TCP", "UDP"])
HANDLERS = fields(preStop=PRE_STOPS, postStart=st.just({"exec": {"command": ["a"]}}))
DECLARED = st.fixed_dictionaries({"containerPort": PORTS}, optional={"name": NAMES, "protocol": PROTOCOLS, "hostPort": PORTS})
VALUES = st.sampled_from(["8000", "8001", "$(P)", ""]) | TEXTS
VARIABLES = st.one_of(
    st.builds(
        lambda name, value: {"name": name, "value": value},
        st.sampled_from(["P", "HOST", "EXTRA"]),
        VALUES,
    ),
    st.just({"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
    st.just({"name": "NOTHING"}),
)


MOUNTS = st.builds(
    lambda path, read_only: {"name": "data", "mountPath": path, "readOnly": read_only},
    st.sampled_from(["/models", "/data", "/models/a", "/"]),
    st.booleans(),
)


def containers(name: str) -> st.SearchStrategy[Pod]:
    optional = fields(
        image=IMAGES,
        command=COMMANDS,
        args=st.lists(WORDS, max_size=6),
        env=st.lists(VARIABLES, max_size=3),
        ports=st.lists(DECLARED, max_size=3),
        livenessProbe=ACTIONS,
        readinessProbe=ACTIONS,
        startupProbe=ACTIONS,
        lifecycle=HANDLERS,
        volumeMounts=st.lists(MOUNTS, max_size=2),
    )
    return optional.map(lambda more: {"name": name, **more})


def with_likely_vllm(name: str) -> st.SearchStrategy[Pod]:
    """So that many pods can be injected."""
    likely = st.sampled_from([
        {"command": ["vllm", "serve", "m"]},
        {"image": "vllm/vllm-openai:v1", "args": ["--model", "m"], "command": None},
        {"command": ["sh", "-c"], "args": ["vllm serve m --port 8001 \\\n"]},
        {"command": ["vllm", "serve"], "args": ["m", "--port", "8080"]},
    ])  # fmt: skip
    return st.builds(lambda container, more: {**container, **more}, containers(name), likely)


ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        [
            names.CONTAINER_ANNOTATION,
            names.PORT_ANNOTATION,
            names.VERSION_ANNOTATION,
            names.INJECTION_ANNOTATION,
            names.CACHE_ANNOTATION,
            ARTIFACTS_ANNOTATION,
            "x",
        ]
    ),
    st.sampled_from(["vllm", "8000", "v1"]) | TEXTS,
    max_size=2,
)
METADATA = fields(annotations=ANNOTATIONS, labels=st.just({"app": "vllm"}), generateName=st.just("vllm-"))
VOLUMES = ["data", "shm", "inference-cache-tmp", "inference-cache-artifacts", "inference-cache-fetch-token"]
SPECS = fields(
    initContainers=st.lists(
        st.sampled_from(["init", "istio-init", "inference-cache", "inference-cache-fetch-0"]), unique=True, max_size=2
    ).map(lambda found: [{"name": name, "image": "example.org/i", "restartPolicy": "Always"} for name in found]),
    volumes=st.lists(st.sampled_from(VOLUMES), unique=True, max_size=2).map(
        lambda found: [{"name": name, "emptyDir": {}} for name in found]
    ),
    terminationGracePeriodSeconds=st.sampled_from([0, 5, 30, 150, 151, 3600]),
    hostNetwork=st.booleans(),
    dnsPolicy=st.sampled_from(["Default", "ClusterFirst", "ClusterFirstWithHostNet"]),
    resources=st.just({"limits": {"cpu": "4"}}),
    securityContext=st.just({"runAsUser": 0}),
)
PODS = st.builds(
    lambda meta, spec, vllm, others: {"metadata": meta, "spec": {**spec, "containers": [vllm, *others]}},
    METADATA,
    SPECS,
    with_likely_vllm("vllm") | containers("vllm"),
    st.just([]) | containers("other").map(lambda container: [container]),
)
RESOURCES = st.builds(
    resource,
    st.sampled_from(
        [
            {},
            {"prefixCaching": {"enabled": False}},
            {"features": {"upstream": "http://f:6566"}},
            {"rollout": {"drainTimeout": "10m"}},
            {"model": {"version": "v1", "artifacts": [{"source": "s3://models/faq/v1/", "mountPath": "/models"}]}},
            {"model": {"version": "v2", "artifacts": [{"source": f"s3://m/{n}/", "mountPath": f"/models/{n}"} for n in "ab"]}},
        ]
    ),
    status=st.sampled_from([{}, *({"artifacts": {"delivery": each}} for each in ("HostPath", "Agent", "Pod"))]),
)
INSTALLATIONS = st.sampled_from([DEFAULTS, WITH_AGENT])
