"""Where a setting comes from when there is a hot configuration, what of it is refused, and what waits for a restart. No sockets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.sidecar.hot_sidecars import Volume

from inference_cache_contract.configuration import Configuration, FlushOrder, digest
from inference_cache_contract.errors import SpecErrors
from inference_cache_contract.spec import parse_spec
from inference_cache_sidecar.configuration.cold import held, needs_restart
from inference_cache_sidecar.configuration.configured import Configured
from inference_cache_sidecar.configuration.file import WatchedFile
from inference_cache_sidecar.layers import Layers
from inference_cache_sidecar.settings import Address, ConfigurationFile, Secrets, Settings, Wanted, parse_redis

FREE = Address("127.0.0.1", 0)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def configured(volume: Volume, layers: Layers, **given: Any) -> Configured:
    def wanted(configuration: Configuration) -> Wanted:
        return layers.beneath(configuration).wanted()

    source = ConfigurationFile(volume.path, wanted)
    return Configured(Settings(FREE, "http://127.0.0.1:1", FREE, layers.spec(), "test", "info", configuration=source, **given))


def layers(
    file: Mapping[str, Any] | None = None, variables: Mapping[str, str] | None = None, flags: Mapping[str, str | bool] | None = None
) -> Layers:
    return Layers(flags or {}, variables or {}, file or {})


def test_a_flag_beats_a_variable_and_that_the_configuration_and_that_the_file() -> None:
    below = {"exact": {"ttl": "1h"}, "semantic": {"ttl": "1h", "threshold": 0.1}, "stale": {"ifError": "1h", "whileRevalidate": "1h"}}
    hot = {"exact": {"ttl": "2h"}, "semantic": {"ttl": "2h"}, "stale": {"ifError": "2h", "whileRevalidate": None}}
    given = layers(below, {"INFERENCE_CACHE_EXACT_TTL": "3h", "INFERENCE_CACHE_SEMANTIC_TTL": "3h"}, {"--exact-ttl": "4h"})
    spec = given.beneath(Configuration(hot)).spec()
    assert (spec.exact.ttl_seconds, spec.semantic.ttl_seconds, spec.stale.if_error_seconds) == (4 * 3600, 3 * 3600, 2 * 3600)
    assert (spec.semantic.threshold, spec.stale.while_revalidate_seconds) == (0.1, 3600)


@pytest.mark.parametrize("file", [pytest.param({}, id="no-file"), pytest.param({"model": {"version": "own"}}, id="file")])
def test_the_models_version_is_never_the_configurations(file: dict[str, Any]) -> None:
    spec = layers(file).beneath(Configuration({"model": {"version": "next", "name": "acme"}})).spec()
    assert (spec.model.version, spec.model.name) == ("own" if file else "", "acme")
    by_variable = layers(file, {"INFERENCE_CACHE_MODEL_VERSION": "pods"}).beneath(Configuration({"model": {"version": "next"}})).spec()
    assert by_variable.model.version == "pods"


def test_what_stands_in_the_file_at_the_start_is_started_with(volume: Volume) -> None:
    wanted = volume.configure({"mode": "Bypass", "semantic": {"embedder": {"deadline": "1s"}}}, [FlushOrder("a", "all")])
    taken = configured(volume, layers())
    assert (taken.wanted.spec.mode, taken.digest, taken.needs_restart) == ("Bypass", wanted, ())
    assert taken.orders == (FlushOrder("a", "all"),)


@pytest.mark.parametrize("text", [pytest.param(None, id="missing"), pytest.param("", id="empty"), pytest.param(" \n", id="blank")])
def test_an_empty_or_missing_file_is_no_configuration_yet_and_nothing_is_cached(volume: Volume, text: str | None) -> None:
    if text is not None:
        volume.write(text)
    taken = configured(volume, layers({"mode": "Enabled", "exact": {"ttl": "1h"}}))
    assert (taken.wanted.spec.mode, taken.digest, taken.refused) == ("Bypass", "", ())
    assert taken.wanted.spec.exact.ttl_seconds == 3600
    volume.configure({})
    assert taken.look(lambda _: None)
    assert taken.wanted.spec.mode == "Enabled"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", "configuration: is not JSON", id="json"),
        pytest.param("[]", "configuration: must be an object with `spec` and `flushes`", id="form"),
        pytest.param('{"spec":{"semantic":{"threshold":1.4}},"flushes":[]}', "spec.semantic.threshold: 1.4 is not in [0, 1]", id="value"),
        pytest.param('{"spec":{"model":7},"flushes":[]}', "spec.model: ", id="no-mapping"),
        pytest.param('{"spec":{},"flushes":[{"id":"a","target":"tag","value":""}]}', "configuration.flushes[0].target: ", id="target"),
    ],
)
def test_a_bad_one_is_refused_whole_with_its_path_and_the_one_before_stays_in_force(volume: Volume, text: str, problem: str) -> None:
    before = volume.configure({"mode": "Bypass"})
    taken = configured(volume, layers())
    volume.write(text)
    used: list[Wanted] = []
    assert not taken.look(used.append)
    assert not used
    assert taken.digest == before
    assert taken.refused
    assert taken.refused[0].startswith(problem)
    volume.configure({"mode": "Enabled"})
    assert taken.look(used.append)
    assert (taken.refused, used[0].spec.mode) == ((), "Enabled")


@pytest.mark.parametrize("text", ["{", '{"spec":{"mode":"Enabled","exact":{"ttl":"soon"}},"flushes":[]}'])
def test_with_a_bad_one_at_the_start_nothing_is_cached(volume: Volume, text: str) -> None:
    volume.write(text)
    taken = configured(volume, layers())
    assert (taken.wanted.spec.mode, taken.digest, len(taken.refused)) == ("Bypass", "", 1)


REDIS = parse_redis("redis://127.0.0.1:1")
ORDER = FlushOrder("a", "all")


def test_before_the_first_good_one_nothing_is_shared_and_its_orders_wait_for_a_process_that_can_share(volume: Volume) -> None:
    taken = configured(volume, layers(), redis=REDIS)
    assert taken.wanted.must_not_share
    volume.configure({}, [ORDER])
    assert taken.look(lambda _: None)
    assert taken.needs_restart == ("spec.store.redis.encryptionKeySecretRef",)
    assert taken.orders == ()
    assert configured(volume, layers(), redis=REDIS).orders == (ORDER,), "its successor"


def test_before_the_first_good_one_a_store_that_holds_encrypted_answers_alone_is_opened(volume: Volume) -> None:
    taken = configured(volume, layers(), redis=REDIS, secrets=Secrets((b"k" * 32,)))
    assert not taken.wanted.must_not_share
    volume.configure({}, [ORDER])
    assert taken.look(lambda _: None)
    assert (taken.needs_restart, taken.orders, taken.wanted.spec.mode) == ((), (ORDER,), "Enabled")


def test_orders_are_heeded_also_beside_a_spec_that_is_refused(volume: Volume) -> None:
    before = volume.configure({"mode": "Bypass"})
    taken = configured(volume, layers())
    volume.configure({"mode": "Sometimes"}, [ORDER])
    assert not taken.look(lambda _: None)
    assert (taken.digest, len(taken.refused), taken.orders) == (before, 1, (ORDER,))
    volume.configure({"mode": "Sometimes"}, [])
    assert not taken.look(lambda _: None)
    assert taken.orders == ()


@pytest.mark.parametrize(
    ("field", "path"),
    [
        pytest.param({"newField": {"x": 1}}, "spec.newField", id="top"),
        pytest.param({"semantic": {"newMode": 1}}, "spec.semantic.newMode", id="section"),
        pytest.param({"rollout": {"pause": True}}, "spec.rollout.pause", id="operators"),
        pytest.param({"model": {"artifacts": [{"mountPath": "a"}, {"digest": "b"}]}}, "spec.model.artifacts[1].digest", id="list"),
        pytest.param({"semantic": {"categories": [{"name": "a", "weight": 2}]}}, "spec.semantic.categories[0].weight", id="rows"),
    ],
)
def test_a_field_that_is_not_known_is_left_out_and_told_and_the_rest_is_in_force(volume: Volume, field: dict[str, Any], path: str) -> None:
    wanted = volume.configure({"mode": "Bypass", **field}, [ORDER])
    taken = configured(volume, layers())
    assert (taken.digest, taken.wanted.spec.mode, taken.orders, taken.refused) == (wanted, "Bypass", (ORDER,), ())
    assert taken.status.ignored == (path,)
    volume.configure({"mode": "Bypass"})
    assert taken.look(lambda _: None)
    assert taken.status.ignored == ()


def test_a_field_that_is_not_known_saves_nothing_that_is_wrong(volume: Volume) -> None:
    volume.configure({"newField": 1, "mode": "Sometimes"})
    taken = configured(volume, layers())
    assert [problem.partition(":")[0] for problem in taken.refused] == ["spec.mode"]


def test_a_field_of_the_file_that_is_not_known_is_refused(volume: Volume) -> None:
    volume.configure({"newField": 1})
    source = ConfigurationFile(volume.path, lambda configuration: layers({"sematic": {}}).beneath(configuration).wanted())
    taken = Configured(Settings(FREE, "http://127.0.0.1:1", FREE, parse_spec({}), "test", "info", configuration=source))
    assert [problem.partition(":")[0] for problem in taken.refused] == ["spec.sematic"]


def test_what_cannot_be_taken_up_is_reported_and_the_next_one_is_looked_at(volume: Volume) -> None:
    before = volume.configure({})
    taken = configured(volume, layers())

    def stomach(_: Wanted) -> None:
        raise RuntimeError("no")

    volume.configure({"mode": "Bypass"})
    assert not taken.look(stomach)
    assert (taken.digest, len(taken.refused), taken.wanted.spec.mode) == (before, 1, "Enabled")
    volume.configure({"exact": {"ttl": "1h"}})
    assert taken.look(lambda _: None)
    assert taken.refused == ()


@pytest.mark.parametrize(
    ("spec", "waiting"),
    [
        pytest.param({"semantic": {"embedder": {"deadline": "1s"}}}, "spec.semantic.embedder", id="embedder"),
        pytest.param({"store": {"redis": {"deadline": "1s"}}}, "spec.store.redis", id="redis"),
        pytest.param({"invalidation": {"lease": "5s"}}, "spec.invalidation", id="lease"),
        pytest.param({"invalidation": {"redisStream": {}}}, "spec.invalidation", id="events"),
        pytest.param({"features": {"upstream": "http://127.0.0.1:6566"}}, "spec.features", id="features"),
    ],
)
def test_what_needs_a_restart_is_named_and_left_as_it_was_while_the_rest_is_taken_up(spec: dict[str, Any], waiting: str) -> None:
    started, wanted = Wanted(parse_spec({})), Wanted(parse_spec({**spec, "exact": {"ttl": "7s"}}))
    assert needs_restart(started, wanted, with_store=True) == [waiting]
    now = held(started, wanted)
    assert now.spec.exact.ttl_seconds == 7
    assert needs_restart(started, now, with_store=True) == []


def test_encryption_that_comes_or_goes_needs_a_restart_where_a_store_is_named(volume: Volume) -> None:
    started = layers().wanted()
    wanted = layers({"store": {"redis": {"encryptionKeySecretRef": {"name": "keys", "key": "k"}}}}).wanted()
    assert wanted.must_not_share
    assert needs_restart(started, wanted, with_store=True) == ["spec.store.redis.encryptionKeySecretRef"]
    assert needs_restart(wanted, started, with_store=True) == ["spec.store.redis.encryptionKeySecretRef"]
    assert needs_restart(started, wanted, with_store=False) == []


def test_with_the_variable_set_a_named_secret_is_not_missing() -> None:
    named = {"store": {"redis": {"encryptionKeySecretRef": {"name": "keys", "key": "k"}}}}
    assert not layers(named, {"INFERENCE_CACHE_ENCRYPTION_KEYS": "x"}).wanted().must_not_share
    assert any("nothing is shared" in warning for warning in layers(named).warnings())


def test_the_longest_drain_comes_from_the_rollout() -> None:
    assert layers({"rollout": {"drainTimeout": "5m"}}).wanted().drain_seconds == 300
    assert layers({"rollout": {"drainTimeout": "5m"}}).beneath(Configuration({"rollout": {"drainTimeout": 0}})).wanted().drain_seconds == 0
    assert layers().wanted().drain_seconds == 120
    with pytest.raises(SpecErrors, match="drainTimeout"):
        layers({"rollout": {"drainTimeout": "soon"}}).wanted()


def test_a_file_that_is_replaced_by_its_link_is_read_again_and_an_equal_one_is_no_change(volume: Volume) -> None:
    file = WatchedFile(volume.path)
    assert file.changed() is None
    volume.write("one")
    assert (file.changed(), file.changed()) == ("one", None)
    volume.write("one")
    assert file.changed() is None
    volume.write("two")
    assert file.changed() == "two"
    volume.write("")
    assert file.changed() is None
    volume.path.unlink()
    assert file.changed() is None


def test_the_digest_is_that_of_the_annotations_text(volume: Volume) -> None:
    text = Configuration({"mode": "Bypass"}).text()
    volume.write(text)
    assert configured(volume, layers()).digest == digest(text)
    assert orjson.loads(text) == {"flushes": [], "spec": {"mode": "Bypass"}}
