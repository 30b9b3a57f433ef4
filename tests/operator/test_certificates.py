"""What is done about CA and certificate, and that it can be served: a year is played through in milliseconds."""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web

from inference_cache_operator.certificates import deciding, issuing, serving
from inference_cache_operator.certificates.deciding import (
    CA_BUNDLE,
    CA_KEY,
    LEAF,
    LEAF_KEY,
    Begin,
    DropOldCas,
    IssueLeaf,
    Keep,
    Policy,
    RotateCa,
)
from inference_cache_operator.certificates.issuing import Pair
from inference_cache_operator.certificates.keeping import CertificateKeeper, EntryKeeper
from inference_cache_operator.certificates.objects import SecretRead
from inference_cache_operator.errors import Conflicting
from inference_cache_operator.resource import Resource
from inference_cache_operator.serving import listening
from inference_cache_operator.settings import Address
from inference_cache_operator.webhook import configuration

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(
    names=("hook.ns.svc", "127.0.0.1"),
    ca_lifetime=timedelta(days=365),
    leaf_lifetime=timedelta(days=30),
    settle=timedelta(seconds=10),
    overlap=timedelta(hours=1),
)


def decided(
    data: Mapping[str, bytes], now: datetime, known: timedelta | None = timedelta(hours=1), asked: bool = False
) -> deciding.Decision:
    return deciding.decide(deciding.read_held(data, asked, now), POLICY, now, known)


def done(data: Mapping[str, bytes], now: datetime, known: timedelta | None = timedelta(hours=1), asked: bool = False) -> dict[str, bytes]:
    held = deciding.read_held(data, asked, now)
    return deciding.carry_out(deciding.decide(held, POLICY, now, known), held, data, POLICY, now)


@pytest.fixture(scope="module")
def begun() -> dict[str, bytes]:
    return done({}, START)


def test_an_empty_secret_gets_a_ca_and_a_certificate_at_once(begun: dict[str, bytes]) -> None:
    assert decided({}, START, known=None) == Begin()
    assert begun.keys() == {CA_BUNDLE, CA_KEY, LEAF, LEAF_KEY}
    assert decided(begun, START) == Keep()


@pytest.mark.parametrize(
    ("broken", "decision"),
    [
        pytest.param({CA_BUNDLE: b"junk"}, Begin(), id="a bundle that cannot be read"),
        pytest.param({CA_KEY: b""}, Begin(), id="no key of the CA"),
        pytest.param({LEAF: b"junk"}, IssueLeaf(), id="a certificate that cannot be read"),
        pytest.param({LEAF_KEY: b"junk"}, IssueLeaf(), id="a key that does not fit"),
        pytest.param({CA_BUNDLE: issuing.issue_ca(START, timedelta(days=1)).certificate}, Begin(), id="the key of another CA"),
    ],
)
def test_what_is_broken_is_made_anew(begun: dict[str, bytes], broken: dict[str, bytes], decision: deciding.Decision) -> None:
    assert decided({**begun, **broken}, START) == decision
    assert decided(done({**begun, **broken}, START), START) == Keep()


def test_a_certificate_of_a_foreign_ca_is_not_kept(begun: dict[str, bytes]) -> None:
    foreign = done({}, START)
    assert decided({**begun, LEAF: foreign[LEAF], LEAF_KEY: foreign[LEAF_KEY]}, START) == IssueLeaf()


def test_the_certificate_is_renewed_at_two_thirds_and_the_ca_stays(begun: dict[str, bytes]) -> None:
    assert decided(begun, START + timedelta(days=19)) == Keep()
    renewed = done(begun, START + timedelta(days=21))
    assert renewed[CA_BUNDLE] == begun[CA_BUNDLE]
    assert renewed[LEAF] != begun[LEAF]


def test_another_service_name_makes_another_certificate(begun: dict[str, bytes]) -> None:
    held = deciding.read_held(begun, False, START)
    more = Policy(("hook.ns.svc", "127.0.0.1", "other.ns.svc"), POLICY.ca_lifetime, POLICY.leaf_lifetime, POLICY.settle, POLICY.overlap)
    assert deciding.decide(held, more, START, None) == IssueLeaf()


def test_a_rotation_trusts_the_new_ca_first_then_serves_it_then_forgets_the_old(begun: dict[str, bytes]) -> None:
    now = START + timedelta(days=1)
    assert decided(begun, now, asked=True) == RotateCa()
    both = done(begun, now, asked=True)
    assert both[CA_BUNDLE].endswith(begun[CA_BUNDLE])
    assert both[LEAF] == begun[LEAF]
    assert decided(both, now, known=None) == Keep(waiting=True)
    assert decided(both, now, known=timedelta(seconds=9)) == Keep(waiting=True)
    assert decided(both, now, known=timedelta(seconds=10)) == IssueLeaf()
    served = done(both, now)
    assert decided(served, now + timedelta(minutes=59)) == Keep()
    assert decided(served, now + timedelta(minutes=61)) == DropOldCas()
    alone = done(served, now + timedelta(minutes=61))
    assert len(issuing.read_bundle(alone[CA_BUNDLE])) == 1
    assert decided(alone, now + timedelta(minutes=61)) == Keep()


def test_in_three_years_every_certificate_served_is_trusted_by_every_bundle_around_it() -> None:
    now, data, known_since, rotations = START, dict[str, bytes](), START, 0
    before = b""
    while now < START + timedelta(days=3 * 365):
        decision = decided(data, now, known=now - known_since)
        assert not isinstance(decision, Begin) or not data
        data = done(data, now, known=now - known_since)
        rotations += isinstance(decision, RotateCa)
        if data[CA_BUNDLE] != before:
            before, known_since = data[CA_BUNDLE], now
        held = deciding.read_held(data, False, now)
        assert held.leaf is not None
        assert held.authority is not None
        assert len(held.authorities) <= 2
        now += timedelta(hours=1) if not isinstance(decision, Keep) or decision.waiting else timedelta(hours=20)
    assert rotations == 4


def test_a_ca_that_ran_out_while_nobody_led_is_replaced_at_once(begun: dict[str, bytes]) -> None:
    late = START + timedelta(days=400)
    assert decided(begun, late) == Begin()
    assert len(issuing.read_bundle(done(begun, late)[CA_BUNDLE])) == 1


class FakeObjects:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.version = 1
        self.rotate = self.rotated = ""
        self.entries: list[dict[str, Any]] = [{"name": configuration.FIRST, "clientConfig": {"url": "https://x/mutate"}}]

    async def secret(self) -> SecretRead:
        return SecretRead(dict(self.data), str(self.version), self.rotate, self.rotated)

    async def apply_secret(self, data: Mapping[str, bytes], read: SecretRead, rotated: str) -> None:
        if read.resource_version != str(self.version):
            raise Conflicting("secret")
        self.data, self.version, self.rotated = dict(data), self.version + 1, rotated

    async def configuration(self) -> Mapping[str, Any]:
        return {"metadata": {"name": "c", "uid": "u", "resourceVersion": "1"}, "webhooks": self.entries}

    async def apply_configuration(self, body: Mapping[str, Any]) -> None:
        wanted = {entry["name"]: entry for entry in body["webhooks"]}
        known = [{**entry, **wanted.pop(entry["name"], {})} for entry in self.entries]
        self.entries = known + list(wanted.values())

    async def merge_configuration(self, body: Mapping[str, Any]) -> None:
        self.entries = list(body["webhooks"])


def keeper(objects: FakeObjects) -> CertificateKeeper:
    policy = Policy(POLICY.names, POLICY.ca_lifetime, POLICY.leaf_lifetime, timedelta(0), timedelta(0))
    return CertificateKeeper(objects, policy, 0.01)


async def test_the_bundle_reaches_the_configuration_and_then_nothing_is_written() -> None:
    objects = FakeObjects()
    keeping = keeper(objects)
    for _ in range(4):
        await keeping.step()
    version = objects.version
    assert objects.entries[0]["clientConfig"]["caBundle"] == base64.b64encode(objects.data[CA_BUNDLE]).decode()
    await keeping.step()
    assert objects.version == version
    assert keeping.leaf_expires is not None


async def test_with_cert_manager_fail_entries_come_and_go_and_nothing_else_is_touched() -> None:
    objects, required = FakeObjects(), list[Resource]()
    keeping = EntryKeeper(objects, 0.01, lambda: required)
    await keeping.step()
    chart = list(objects.entries)
    spec = {"selector": {"matchLabels": {"app": "vllm"}}, "model": {"artifacts": [{"source": "s3://m/"}]}}
    required.append(Resource("llm", "big", "uid", "2026-01-01T00:00:00Z", 1, spec))
    await keeping.step()
    assert objects.entries[:-1] == chart
    assert objects.entries[-1]["failurePolicy"] == "Fail"
    required.clear()
    await keeping.step()
    assert objects.entries == chart
    assert objects.data == {}


async def test_a_rotation_that_is_asked_for_is_done_once() -> None:
    objects = FakeObjects()
    keeping = keeper(objects)
    for _ in range(3):
        await keeping.step()
    first = objects.data[CA_BUNDLE]
    objects.rotate = "now"
    for _ in range(10):
        await keeping.step()
    assert objects.rotated == "now"
    second = objects.data[CA_BUNDLE]
    assert second != first
    assert len(issuing.read_bundle(second)) == 1
    for _ in range(3):
        await keeping.step()
    assert objects.data[CA_BUNDLE] == second


async def test_of_two_leaders_at_once_one_yields_to_the_other() -> None:
    class Slow(FakeObjects):
        async def secret(self) -> SecretRead:
            read = await super().secret()
            await asyncio.sleep(0)
            return read

    objects = Slow()
    outcomes = await asyncio.gather(keeper(objects).step(), keeper(objects).step(), return_exceptions=True)
    assert sum(isinstance(outcome, Conflicting) for outcome in outcomes) == 1
    assert deciding.read_held(objects.data, False, datetime.now(UTC)).leaf is not None


async def test_new_connections_get_the_new_certificate_and_open_ones_go_on() -> None:
    now = datetime.now(UTC)
    cas = [issuing.issue_ca(now, timedelta(days=1)) for _ in range(2)]
    leaves = [issuing.issue_leaf(ca, ["127.0.0.1"], now, timedelta(hours=1)) for ca in cas]
    served = serving.new_served_certificate()
    assert serving.take(served, leaves[0])

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    trusting = [ssl.create_default_context(cadata=ca.certificate.decode()) for ca in cas]
    async with listening(app, Address("127.0.0.1", 0), ssl_context=served.context) as port:
        url = f"https://127.0.0.1:{port}/"
        async with (
            ClientSession(connector=TCPConnector(ssl=trusting[0])) as old,
            ClientSession(connector=TCPConnector(ssl=trusting[1])) as new,
        ):
            assert await (await old.get(url)).text() == "hello"
            assert serving.take(served, leaves[1])
            assert not serving.take(served, leaves[1])
            assert await (await new.get(url)).text() == "hello"
            assert await (await old.get(url)).text() == "hello"
    assert served.times_loaded == 2


def test_what_cannot_be_served_leaves_the_certificate_before_in_place() -> None:
    now = datetime.now(UTC)
    ca = issuing.issue_ca(now, timedelta(days=1))
    good, other = (issuing.issue_leaf(ca, ["x"], now, timedelta(hours=1)) for _ in range(2))
    served = serving.new_served_certificate()
    assert serving.take(served, good)
    for broken in (None, Pair(b"junk", b"junk"), Pair(other.certificate, good.key), Pair(b"", b"")):
        assert not serving.take(served, broken)
    assert served.pair == good
