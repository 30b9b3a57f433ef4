import json
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from inference_cache_contract.spec import Spec, parse_spec
from inference_cache_contract.spec_table import SETTINGS
from inference_cache_sidecar import command, settings_page
from inference_cache_sidecar.errors import CannotStart
from inference_cache_sidecar.settings import PROCESS_SETTINGS, Address, Settings

UPSTREAM = ("--upstream", "http://127.0.0.1:18000")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Stands for the application: remembers the settings that it was started with. No variable of ours is set."""
    settings: list[Settings] = []
    app = ModuleType("inference_cache_sidecar.app")
    app.run = settings.append  # type: ignore[attr-defined]  # a module's attribute
    monkeypatch.setitem(sys.modules, "inference_cache_sidecar.app", app)
    monkeypatch.setattr("inference_cache_sidecar.app", app, raising=False)
    for setting in (*SETTINGS, *PROCESS_SETTINGS):
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("INFERENCE_CACHE_ADMIN_TOKEN", raising=False)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    return settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache.yaml"


def test_with_an_upstream_alone_everything_has_its_default(started: list[Settings]) -> None:
    assert command.main([*UPSTREAM]) == 0
    assert started == [
        Settings(Address("127.0.0.1", 8000), "http://127.0.0.1:18000", Address("127.0.0.1", 9180), Spec(), "inference-cache", "info", None)
    ]


def test_a_flag_beats_a_variable_and_that_the_file_and_that_the_default(
    started: list[Settings], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("exact: {ttl: 1h}\nsemantic: {ttl: 1h, threshold: 0.5}\nstale: {ifError: 1h}\nstore: {memory: {maxBytes: 1Gi}}\n")
    monkeypatch.setenv("INFERENCE_CACHE_EXACT_TTL", "2h")
    monkeypatch.setenv("INFERENCE_CACHE_SEMANTIC_TTL", "2h")
    monkeypatch.setenv("INFERENCE_CACHE_STORE_MEMORY_MAX_BYTES", "2Gi")
    assert command.main([*UPSTREAM, "--spec", str(file), "--exact-ttl", "3h", "--semantic-threshold", "0"]) == 0
    spec = started[0].spec
    assert (spec.exact.ttl_seconds, spec.semantic.ttl_seconds, spec.stale.if_error_seconds) == (10800, 7200, 3600)
    assert (spec.semantic.threshold, spec.store.memory.max_bytes) == (0, 2**31)
    assert spec.tenancy.revalidate_seconds == 300


def test_every_process_setting_can_be_a_flag_or_a_variable(started: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_UPSTREAM", "https://vllm.example/")
    monkeypatch.setenv("INFERENCE_CACHE_LISTEN", "[::1]:1")
    monkeypatch.setenv("INFERENCE_CACHE_CACHE_NAME", "llm/faq")
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", " token\n")
    assert command.main(["--admin", "0.0.0.0:0", "--log-level", "DEBUG"]) == 0
    settings = started[0]
    assert (str(settings.listen), str(settings.admin), settings.upstream) == ("[::1]:1", "0.0.0.0:0", "https://vllm.example")
    assert (settings.cache_name, settings.log_level, settings.admin_token) == ("llm/faq", "debug", "token")
    assert "token" not in repr(settings).replace("admin_token", "")


OTHER_VALUES = {
    "spec.features.upstream": "http://feast:6566",
    "spec.features.views": '[{"name": "user_stats", "ttl": "1m"}]',
    "spec.features.joinKeys": "user_id,item_id",
    "spec.mode": "Bypass",
    "spec.semantic.mode": "Off",
    "spec.semantic.endpoints": "chat,completions",
    "spec.semantic.embedder.path": "/models/other",
    "spec.semantic.categories": json.dumps([{"name": "pricing", "match": {"header": {"x-category": "pricing"}}, "threshold": 0.97}]),
    "spec.sampling.cache": "All",
    "spec.tenancy.from": "Shared",
    "spec.tenancy.claim": "sub",
    "spec.tenancy.verifiedBy": "Gateway",
    "spec.invalidation.kafka.bootstrapServers": "kafka:9092",
    "spec.invalidation.kafka.tls": "true",
    "spec.invalidation.kafka.mechanism": "SCRAM-SHA-512",
    "spec.limits.connections": "7",
    "spec.trustedHeaders.from": "10.0.0.0/8,::1/128",
}
BY_KIND = {"text": "other", "duration": "7m", "bytes": "7Mi", "number": "0.7", "boolean": "false", "All | Exact | Never": "All"}


def _beside(setting: Any) -> dict[str, str]:
    """Variables without which the setting may not be set."""
    kafka = "INFERENCE_CACHE_INVALIDATION_KAFKA_"
    needed = {"spec.tenancy.claim": {"INFERENCE_CACHE_TENANCY_VERIFIED_BY": "Gateway"}}
    needed["spec.invalidation.kafka.bootstrapServers"] = {}
    for field in ("caFile", "certificateFile", "keyFile"):
        needed[f"spec.invalidation.kafka.{field}"] = {kafka + "TLS": "true", kafka + "BOOTSTRAP_SERVERS": "kafka:9092"}
    needed["spec.invalidation.kafka.keyFile"][kafka + "CERTIFICATE_FILE"] = "/certificate.pem"
    for_kafka = {kafka + "BOOTSTRAP_SERVERS": "kafka:9092"} if setting.path.startswith("spec.invalidation.kafka.") else {}
    return needed.get(setting.path, for_kafka)


@pytest.mark.parametrize("setting", [pytest.param(setting, id=setting.path) for setting in SETTINGS])
def test_every_field_can_be_a_flag_or_a_variable_and_survives_print_config(setting: Any) -> None:
    text = OTHER_VALUES.get(setting.path) or BY_KIND[setting.kind.name]
    flags = {"false": [setting.flag.replace("--", "--no-", 1)], "true": [setting.flag]}.get(text, [setting.flag, text])
    beside = _beside(setting)
    without, _ = command.read_layers([], beside)
    layers, _ = command.read_layers(flags, beside)
    by_variable, _ = command.read_layers([], {**beside, setting.variable: text})
    assert layers.spec() == by_variable.spec() != without.spec()
    assert parse_spec(yaml.safe_load(command.config_text(layers))) == layers.spec()


def test_a_printed_configuration_loads_to_the_same_again(started: list[Settings], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("model: {version: v2}\nsemantic: {mode: Off, categories: [{name: a, ttl: 0s}]}\n")
    assert command.main(["--print-config", "--spec", str(file), "--no-exact-normalize-case"]) == 0
    printed = capsys.readouterr().out
    file.write_text(printed)
    assert command.main(["--print-config", "--spec", str(file)]) == 0
    again = capsys.readouterr().out
    assert yaml.safe_load(again) == yaml.safe_load(printed)
    assert started == []
    read = parse_spec(yaml.safe_load(printed))
    assert (read.model.version, read.semantic.mode, read.exact.normalize.case) == ("v2", "Off", False)
    assert read.semantic.categories[0].ttl_seconds == 0


def test_a_whole_resource_is_read_by_its_spec(started: list[Settings], file: Path) -> None:
    file.write_text("apiVersion: inferencecache.io/v1alpha1\nkind: InferenceCache\nmetadata: {name: x}\nspec: {mode: Bypass}\n")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    assert started[0].spec.mode == "Bypass"


@pytest.mark.parametrize("written", ["", "# nothing\n", "{}", "semantic:\n"], ids=repr)
def test_an_empty_file_is_the_defaults(started: list[Settings], file: Path, written: str) -> None:
    file.write_text(written)
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    assert started[0].spec == Spec()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["--semantic-threshold", "1.4"], "spec.semantic.threshold: 1.4 is not in [0, 1] (from --semantic-threshold)", id="range"
        ),
        pytest.param(
            ["--semantic-threshold", "high"], "spec.semantic.threshold: 'high' is not a number (from --semantic-threshold)", id="text"
        ),
        pytest.param(["--limits-connections", "many"], "spec.limits.connections: 'many' is not a whole number (from ", id="count"),
        pytest.param(
            ["--semantic-categories", '[{"name": "a", "threshold": 2}]'],
            "spec.semantic.categories[0].threshold: 2 is not in [0, 1] (from --semantic-categories)",
            id="category",
        ),
        pytest.param(["--semantic-categories", "pricing"], "spec.semantic.categories: 'pricing' is not a list", id="categories-not-json"),
        pytest.param(
            ["--semantic-treshold", "1"], "unknown argument --semantic-treshold; did you mean --semantic-threshold?", id="misspelt"
        ),
        pytest.param(["--semantic-thresh", "1"], "unknown argument --semantic-thresh", id="abbreviated"),
        pytest.param(["--exact-ttl"], "argument --exact-ttl: expected one argument", id="no-value"),
        pytest.param(["--listen", "8000"], "--listen: '8000' is not HOST:PORT", id="listen"),
        pytest.param(["--listen", "127.0.0.1:70000"], "--listen: '127.0.0.1:70000' is not HOST:PORT", id="port"),
        pytest.param(["--admin", "127.0.0.1:8000"], "--admin: 127.0.0.1:8000 is also where clients connect", id="one-port-twice"),
        pytest.param(["--upstream", "127.0.0.1:1"], "--upstream: '127.0.0.1:1' is not a URL", id="upstream"),
        pytest.param(["--upstream", "http://x:99999"], "--upstream: 'http://x:99999' is not a URL", id="upstream-port"),
        pytest.param(["--upstream", "http://x:1/v1"], "--upstream: 'http://x:1/v1' must end after the port", id="upstream-path"),
        pytest.param(
            ["--upstream", "http://127.0.0.1:8000"], "--upstream: http://127.0.0.1:8000 is the sidecar itself", id="upstream-is-me"
        ),
        pytest.param(["--log-level", "loud"], "--log-level: 'loud' is not one of", id="log-level"),
        pytest.param(["--spec", "missing.yaml"], "missing.yaml: cannot be read", id="no-file"),
    ],
)
def test_a_mistake_ends_with_status_2_and_its_place(
    started: list[Settings], capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert command.main([*UPSTREAM, *arguments]) == 2
    assert told in capsys.readouterr().err
    assert started == []


def test_a_missing_upstream_is_told(started: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "--upstream: is required (or INFERENCE_CACHE_UPSTREAM)" in capsys.readouterr().err


def test_all_mistakes_are_told_at_once(
    started: list[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_EXACT_TTL", "soon")
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", "t\u00f6ken")
    assert command.main(["--listen", "x", "--mode", "enabled"]) == 2
    told = capsys.readouterr().err
    for place in (
        "--listen:",
        "--upstream:",
        "spec.mode:",
        "spec.exact.ttl:",
        "(from INFERENCE_CACHE_EXACT_TTL)",
        "INFERENCE_CACHE_ADMIN_TOKEN:",
    ):
        assert place in told
    assert "t\u00f6ken" not in told


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param("mode: Enabled\nmode: Bypass\n", "'mode' stands there twice", id="key-twice"),
        pytest.param("semantic: {threshold: 0.9, ttl: 1h, threshold: 0.8}\n", "'threshold' stands there twice", id="inner-key-twice"),
        pytest.param("semantic: {threshold: 1.4}\n", "spec.semantic.threshold: 1.4 is not in [0, 1]", id="value"),
        pytest.param("model: {version: 1.10}\n", "spec.model.version: 1.1 is not a text; put it in quotes", id="version-as-number"),
        pytest.param("exact: {normalize: {case: yes}}\n", "spec.exact.normalize.case: 'yes' is neither true nor false", id="yes"),
        pytest.param("- mode\n", "is not a mapping", id="list"),
        pytest.param("a: [\n", "is not YAML", id="broken"),
        pytest.param("a: !!python/object/apply:os.getcwd []\n", "is not YAML", id="python-object"),
        pytest.param("a: {[b]: c}\n", "is not YAML", id="odd-key"),
        pytest.param("[" * 1000, "is not YAML", id="deep"),
        pytest.param("#" * (2**20 + 1), "is larger than", id="huge"),
        pytest.param("apiVersion: v1\nkind: Pod\n", "'Pod' is not InferenceCache", id="another-resource"),
        pytest.param("kind: InferenceCache\n", "spec.kind: unknown field", id="half-a-resource"),
    ],
)
def test_a_bad_file_ends_with_status_2(
    started: list[Settings], file: Path, capsys: pytest.CaptureFixture[str], written: str, told: str
) -> None:
    file.write_text(written)
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_no_text_is_refused(started: list[Settings], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"mode: \xff\xfe\n")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 2
    assert "is not YAML" in capsys.readouterr().err


def test_unquoted_words_of_yaml_stay_words(started: list[Settings], file: Path) -> None:
    file.write_text("semantic: {mode: Off}\nmodel: {version: 2026-01-02, name: on}\n")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    spec = started[0].spec
    assert (spec.semantic.mode, spec.model.version, spec.model.name) == ("Off", "2026-01-02", "on")


def test_what_is_accepted_but_not_used_is_warned_of(started: list[Settings], file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("semantic: {calibration: {judge: Upstream}}\nrollout: {trigger: Auto}\n")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    assert caplog.messages == ["spec.semantic.calibration is accepted but not used by this sidecar"]


def test_a_secret_that_did_not_come_is_warned_of(
    started: list[Settings], file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("store: {redis: {urlSecretRef: {name: redis, key: url}}}\n")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    missing = "spec.store.redis.urlSecretRef names a secret, but INFERENCE_CACHE_REDIS_URL is not set: this sidecar goes on without it"
    assert caplog.messages == [missing]
    monkeypatch.setenv("INFERENCE_CACHE_REDIS_URL", "redis://127.0.0.1:6379/0")
    caplog.clear()
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    assert caplog.messages == []
    assert str(started[-1].redis) == "standalone 127.0.0.1:6379"


def test_a_login_for_kafka_comes_by_two_variables_or_not_at_all(
    started: list[Settings], file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("invalidation: {kafka: {bootstrapServers: 'kafka:9092'}}\n")
    monkeypatch.setenv("INFERENCE_CACHE_KAFKA_USERNAME", "cache\n")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 2
    assert "INFERENCE_CACHE_KAFKA_PASSWORD: is missing" in capsys.readouterr().err
    monkeypatch.setenv("INFERENCE_CACHE_KAFKA_PASSWORD", " as it is ")
    assert command.main([*UPSTREAM, "--spec", str(file)]) == 0
    assert (started[0].secrets.kafka_username, started[0].secrets.kafka_password) == ("cache", " as it is ")
    assert "as it is" not in repr(started[0])


def test_what_the_machine_lacks_ends_with_status_1_and_is_told(
    started: list[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Settings) -> None:
        raise CannotStart("spec.invalidation.kafka needs something")

    monkeypatch.setattr("inference_cache_sidecar.app.run", refuse)
    assert command.main([*UPSTREAM]) == 1
    assert capsys.readouterr().err == "inference-cache sidecar: spec.invalidation.kafka needs something\n"


def test_a_misspelt_variable_is_warned_of_and_those_of_kubernetes_are_not(
    started: list[Settings], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_SEMANTIC_TRESHOLD", "0.9")
    monkeypatch.setenv("INFERENCE_CACHE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("INFERENCE_CACHE_PORT", "tcp://10.0.0.1:8000")
    assert command.main([*UPSTREAM]) == 0
    assert caplog.messages == [
        "INFERENCE_CACHE_SEMANTIC_TRESHOLD is no setting of the sidecar; did you mean INFERENCE_CACHE_SEMANTIC_THRESHOLD?"
    ]


def test_an_empty_variable_is_not_set(started: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_EXACT_TTL", "")
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", "")
    assert command.main([*UPSTREAM]) == 0
    assert (started[0].spec, started[0].admin_token) == (Spec(), None)


def test_help_tells_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(setting.flag in told for setting in (*SETTINGS, *PROCESS_SETTINGS))
    assert "0.92" in told
    assert "INFERENCE_CACHE_ADMIN_TOKEN" in told


def test_help_and_print_config_do_not_wait_for_the_application() -> None:
    program = (
        "import sys; from inference_cache_sidecar.command import main; main(['--print-config']); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'aiohttp', 'faiss', 'numpy', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_settings_page_says_what_the_code_does() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == settings_page.page(), "python -m inference_cache_sidecar.settings_page > docs/settings.md"
