"""What an event makes unreachable, and whose bytes are deleted after."""

from collections.abc import Sequence

from inference_cache_contract.epochs import category_epoch, entity_epoch, tag_epoch, version_epoch
from inference_cache_sidecar.events.flushing import EventFlushes
from inference_cache_sidecar.events.payloads import parse
from inference_cache_sidecar.flush import FlushRequest


class Effects:
    def __init__(self, others: Sequence[str] = ()) -> None:
        self.raised: list[str] = []
        self.purged: list[FlushRequest] = []
        self.ordered: list[str] = []
        self._others = others
        """Raised by other replicas."""

    async def raise_all(self, names: object) -> list[str]:
        assert isinstance(names, list)
        self.raised = [name for name in names if name not in self._others]
        return self.raised

    def flushes(self, *, with_features: bool = True) -> EventFlushes:
        return EventFlushes(self.raise_all, self.purged.append, self.ordered.append, with_features=with_features)


async def test_activity_raises_the_users_tag_and_the_entity_together() -> None:
    effects = Effects()
    await effects.flushes().apply(parse("user_activity", b'{"user_id": 7, "entity": "driver"}'))
    assert effects.raised == [tag_epoch("user:7"), entity_epoch("driver", 7)]
    assert (effects.purged, effects.ordered) == ([], ["tag"])


async def test_without_a_feature_cache_activity_raises_the_users_tag_alone() -> None:
    effects = Effects()
    await effects.flushes(with_features=False).apply(parse("user_activity", b'{"user_id": 7}'))
    assert effects.raised == [tag_epoch("user:7")]


async def test_only_the_bytes_of_a_version_are_deleted_and_by_the_replica_that_raised_it() -> None:
    effects, idle = Effects(), Effects(others=[version_epoch("v1")])
    event = parse("model_updates", b'{"version": "v1", "adapter": "sql"}')
    await effects.flushes().apply(event)
    await idle.flushes().apply(event)
    assert effects.purged == [FlushRequest("version", "v1")]
    assert (idle.purged, idle.ordered) == ([], ["adapter"])


async def test_tags_and_a_category_are_raised_and_their_bytes_left_to_expire() -> None:
    effects = Effects()
    await effects.flushes().apply(parse("kb_updates", b'{"tags": ["a", "b"], "category": "pricing"}'))
    assert effects.raised == [tag_epoch("a"), tag_epoch("b"), category_epoch("pricing")]
    assert effects.purged == []
