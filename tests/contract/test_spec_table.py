from inference_cache_contract.spec import Spec, show_spec
from inference_cache_contract.spec_invalidation import Invalidation, Kafka, Pubsub, RedisStream
from inference_cache_contract.spec_table import SETTINGS, VARIABLE_PREFIX

SERVER = "kafka:9092"


def test_every_name_is_unique() -> None:
    for names in ([each.path for each in SETTINGS], [each.flag for each in SETTINGS], [each.variable for each in SETTINGS]):
        assert len(set(names)) == len(names)


def test_flag_and_variable_follow_the_path() -> None:
    found = {setting.path: (setting.flag, setting.variable) for setting in SETTINGS}
    assert found["spec.store.memory.maxBytes"] == ("--store-memory-max-bytes", "INFERENCE_CACHE_STORE_MEMORY_MAX_BYTES")
    assert found["spec.exact.ttl"] == ("--exact-ttl", "INFERENCE_CACHE_EXACT_TTL")
    assert found["spec.tenancy.from"] == ("--tenancy-from", "INFERENCE_CACHE_TENANCY_FROM")


def test_no_variable_is_one_that_kubernetes_sets_for_a_service_of_our_name() -> None:
    """`inference-cache` as a Service's name gives INFERENCE_CACHE_PORT, INFERENCE_CACHE_SERVICE_HOST and the like."""
    for setting in SETTINGS:
        assert not setting.variable.startswith((VARIABLE_PREFIX + "PORT", VARIABLE_PREFIX + "SERVICE_"))
        assert not setting.variable.endswith(("_PORT", "_SERVICE_HOST"))


def test_a_tables_default_is_the_dataclasses_default() -> None:
    whole = Spec(invalidation=Invalidation(redis_stream=RedisStream(), pubsub=Pubsub(), kafka=Kafka(SERVER)))
    for setting in SETTINGS:
        shown: object = show_spec(whole)
        for name in setting.names:
            shown = shown.get(name) if isinstance(shown, dict) else None
        assert (None if shown == SERVER else shown) == (None if setting.default is None else setting.kind.show(setting.default)), (
            setting.path
        )


def test_every_setting_says_what_it_is_for() -> None:
    assert all(setting.help and setting.kind.name for setting in SETTINGS)


def test_a_default_written_behind_a_flag_reads_as_the_default() -> None:
    for setting in SETTINGS:
        if setting.default is not None and setting.default_text not in ("none", '""'):
            assert setting.kind.parse(setting.kind.from_text(setting.default_text)) == setting.default, setting.flag
