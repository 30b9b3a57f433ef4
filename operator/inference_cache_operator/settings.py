"""What an operator or webhook process is started with. `settings_reading` makes it; nothing below reads the environment."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from inference_cache_contract.errors import shown
from inference_cache_contract.quantity import parse_duration
from inference_cache_operator.audit.repair import USER_SECONDS
from inference_cache_operator.injection.container import ARTIFACTS_FOLDER

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("json", "text")
CERTIFICATE_SOURCES: Final = ("own", "cert-manager")
VARIABLE_PREFIX: Final = "INFERENCE_CACHE_OPERATOR_"
_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:\[\]/@]+)):(?P<port>[0-9]{1,5})")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_URL: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of both commands; each reads the fields that its flags name. All durations are seconds."""

    own_namespace: str
    """The operator's own: its Lease, its Secret, its probe pods."""
    pod_name: str
    """Who holds the lease, who answered a probe."""
    namespaces: tuple[str, ...] = ()
    """Whose resources and pods are looked after; none: the whole cluster."""
    health: Address = Address("0.0.0.0", 8081)  # noqa: S104  kubelet asks by the pod's address
    """`/livez`, `/readyz` and `/metrics`, by plain HTTP."""
    log_level: str = "info"
    log_format: str = "json"
    stale_after: float = 60.0
    """A watch that misses a change for longer is dead, and the process with it."""
    freshness_every: float = 15.0
    """Between two comparisons of the watch with a list."""
    sidecar_image: str = ""
    """Of sidecars whose resource names none."""
    sidecar_pull_policy: str = "IfNotPresent"
    sidecar_resources: tuple[tuple[str, str], ...] = ()
    """Name and quantity, such as `memory`, `1Gi`; each beats what is the default of that name."""
    ignored_names: tuple[str, ...] = ()
    """Patterns of vLLM's options and variables that change no answer; none: the built-in list."""
    artifacts_agent: str = ""
    """URL at which pods reach the agent of their own node; empty: there are none."""
    artifacts_folder: str = ARTIFACTS_FOLDER
    """Of the nodes, in which agents keep model files."""

    listen: Address = Address("0.0.0.0", 9443)  # noqa: S104  the API server calls by the pod's address
    list_deadline: float = 2.0
    """For reading the resources of a pod's namespace; then the index is asked."""

    certificates: str = "own"
    """`own`: made and rotated here; `cert-manager`: files of a mounted Secret, and caBundle is not ours."""
    tls_folder: str = ""
    """Holds tls.crt and tls.key; empty: they are read from the Secret."""
    certificate_secret: str = "inference-cache-certificates"  # noqa: S105  the name of an object, not a secret
    certificate_poll: float = 10.0
    webhook_configuration: str = "inference-cache"
    webhook_services: tuple[str, ...] = ("inference-cache-webhook-a", "inference-cache-webhook-b")
    certificate_names: tuple[str, ...] = ()
    """DNS names and addresses besides the Services'."""
    ca_lifetime: float = 365 * _DAY
    leaf_lifetime: float = 30 * _DAY
    ca_settle: float = 10.0
    """From a new CA in caBundle to a leaf signed by it: every API server must have read it."""
    ca_overlap: float = 3600.0
    """From a leaf of a new CA to the old CA's leaving caBundle: every webhook must serve the new leaf."""

    lease: str = "inference-cache-operator"
    template_wait: float = USER_SECONDS
    """After a bump, before pods are replaced by the operator: their owner may be about to change their template himself."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting as a person gives it: by flag or variable."""

    flag: str
    metavar: str
    help: str
    field: str
    """Of `Settings`."""
    parse: Callable[[str], Any]
    repeated: bool = False
    """May be given more than once; in its variable, parted by commas."""

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.flag.removeprefix("--").replace("-", "_").upper()


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{shown(text)} is not HOST:PORT, such as 0.0.0.0:8081 or [::]:8081")
    return Address(match["six"] or match["host"], int(match["port"]))


def parse_name(text: str) -> str:
    """An object's name. Raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{shown(text)} is not the name of a Kubernetes object")
    return text


def parse_url(text: str) -> str:
    """`http://HOST:PORT` or https. Raises ValueError."""
    url = text.rstrip("/")
    if not _URL.fullmatch(url):
        raise ValueError(f"{shown(text)} is not http://HOST:PORT, such as http://inference-cache-agent.inference-cache.svc:9182")
    return url


def parse_folder(text: str) -> str:
    """An absolute path without `..`, which hostPath refuses. Raises ValueError."""
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise ValueError(f"{shown(text)} is not the absolute path of a folder, such as /var/lib/inference-cache/agent")
    return str(path)


def parse_positive(text: str) -> float:
    """A duration above zero, in seconds. Raises ValueError."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{shown(text)} must be more than 0")
    return seconds


def parse_resource(text: str) -> tuple[str, str]:
    """Raises ValueError."""
    name, equals, quantity = text.partition("=")
    if not equals or not name or not quantity:
        raise ValueError(f"{shown(text)} is not NAME=QUANTITY, such as memory=1Gi")
    return name, quantity


def one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in {each.lower() for each in allowed}:
            raise ValueError(f"{shown(text)} is not one of {', '.join(allowed)}")
        return next(each for each in allowed if each.lower() == text.lower())

    return parse


COMMON: Final = (
    Flag("--own-namespace", "NAME", "the namespace this process runs in; required", "own_namespace", parse_name),
    Flag("--pod-name", "NAME", "this pod's name (default: the host's name)", "pod_name", parse_name),
    Flag("--namespace", "NAME", "look after this namespace only; may be repeated (default: all)", "namespaces", parse_name, repeated=True),
    Flag("--health", "HOST:PORT", "where /livez, /readyz and /metrics are", "health", parse_address),
    Flag("--log-level", "LEVEL", "debug, info, warning or error", "log_level", one_of(*LOG_LEVELS)),
    Flag("--log-format", "FORMAT", "json or text", "log_format", one_of(*LOG_FORMATS)),
    Flag("--stale-after", "DURATION", "a watch that misses a change for longer ends the process", "stale_after", parse_positive),
    Flag("--freshness-every", "DURATION", "how often the watch is compared with a list", "freshness_every", parse_positive),
    Flag("--sidecar-image", "IMAGE", "of sidecars whose resource names none; required", "sidecar_image", str),
    Flag(
        "--sidecar-pull-policy",
        "POLICY",
        "Always, IfNotPresent or Never",
        "sidecar_pull_policy",
        one_of("Always", "IfNotPresent", "Never"),
    ),
    Flag("--sidecar-resource", "NAME=QUANTITY", "of sidecars; may be repeated", "sidecar_resources", parse_resource, repeated=True),
    Flag("--ignored-name", "PATTERN", "an option or variable of vLLM that changes no answer", "ignored_names", str, repeated=True),
    Flag(
        "--artifacts-agent",
        "URL",
        "where pods reach their node's agent for model files (default: there is none)",
        "artifacts_agent",
        parse_url,
    ),
    Flag("--artifacts-folder", "FOLDER", "of the nodes, in which agents keep model files", "artifacts_folder", parse_folder),
    Flag(
        "--certificates",
        "SOURCE",
        "own (made and rotated by the operator) or cert-manager",
        "certificates",
        one_of(*CERTIFICATE_SOURCES),
    ),
    Flag("--certificate-secret", "NAME", "the Secret that holds CA and certificate", "certificate_secret", parse_name),
    Flag("--certificate-poll", "DURATION", "how often it is read", "certificate_poll", parse_positive),
)

WEBHOOK: Final = (
    Flag("--listen", "HOST:PORT", "where the API server's admission requests come in", "listen", parse_address),
    Flag("--list-deadline", "DURATION", "for reading the resources of a pod's namespace", "list_deadline", parse_positive),
    Flag("--tls-folder", "FOLDER", "holds tls.crt and tls.key, read again when they change (with cert-manager)", "tls_folder", str),
)

OPERATOR: Final = (
    Flag("--lease", "NAME", "the Lease by which one replica leads", "lease", parse_name),
    Flag("--template-wait", "DURATION", "after a bump, before the operator replaces pods itself", "template_wait", parse_duration),
    Flag("--webhook-configuration", "NAME", "the MutatingWebhookConfiguration", "webhook_configuration", parse_name),
    Flag("--webhook-service", "NAME", "a Service of the webhook; may be repeated", "webhook_services", parse_name, repeated=True),
    Flag(
        "--certificate-name",
        "NAME",
        "a DNS name or address besides theirs; may be repeated",
        "certificate_names",
        str,
        repeated=True,
    ),
    Flag("--ca-lifetime", "DURATION", "of a CA; it is replaced at two thirds", "ca_lifetime", parse_positive),
    Flag("--leaf-lifetime", "DURATION", "of the webhook's certificate; it is replaced at two thirds", "leaf_lifetime", parse_positive),
    Flag("--ca-settle", "DURATION", "from a new CA in caBundle to its first certificate", "ca_settle", parse_duration),
    Flag("--ca-overlap", "DURATION", "how long the old CA is trusted after that", "ca_overlap", parse_duration),
)
