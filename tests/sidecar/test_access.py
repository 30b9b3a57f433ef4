import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest

from inference_cache_sidecar.access import Access, Tenancy, jwt_claim
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

LIMITS = UpstreamLimits(connect_seconds=1, idle_seconds=0, header_bytes=8190)
KEY = b"k" * 32
ALICE, BOB = {"Authorization": "Bearer alice"}, {"Authorization": "Bearer bob"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def access(standin_url: str, clock: Clock) -> AsyncIterator[Access]:
    upstream = Upstream(standin_url, LIMITS)
    await upstream.open()
    access = Access(upstream, 300, clock)
    yield access
    await access.close()
    await upstream.close()


def credential(headers: dict[str, str]) -> bytes:
    return Tenancy("Authorization", KEY).caller(headers).credential


async def test_upstream_decides_once_who_may_hit(access, standin):
    standin.api_key = "alice"
    assert await access.confirm(credential(ALICE), ALICE)
    assert await access.confirm(credential(ALICE), ALICE)
    assert standin.calls["/v1/models"] == 1
    assert not await access.confirm(credential(BOB), BOB)


async def test_acceptance_ends_after_revalidate(access, clock):
    access.observe(credential(ALICE), "/v1/chat/completions", 200)
    clock.now += 299
    assert access.accepted(credential(ALICE))
    clock.now += 1
    assert not access.accepted(credential(ALICE))


async def test_a_refusal_ends_acceptance_at_once(access):
    access.observe(credential(ALICE), "/v1/chat/completions", 200)
    access.observe(credential(ALICE), "/v1/chat/completions", 401)
    assert not access.accepted(credential(ALICE))


async def test_an_answer_from_a_path_without_key_check_proves_nothing(access):
    access.observe(credential(ALICE), "/tokenize", 200)
    assert not access.accepted(credential(ALICE))


async def test_equal_credentials_in_flight_ask_once_and_survive_each_other(access, standin):
    waiting = [asyncio.create_task(access.confirm(credential(ALICE), ALICE)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[1:] == [True] * 19
    assert standin.calls["/v1/models"] == 1


async def test_no_answer_counts_as_no(clock):
    upstream = Upstream("http://127.0.0.1:1", LIMITS)
    await upstream.open()
    access = Access(upstream, 300, clock)
    assert not await access.confirm(credential(ALICE), ALICE)
    await upstream.close()


def token(claims: object) -> str:
    return "h." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".s"


def test_tenants_differ_by_credential_and_by_key():
    one = Tenancy("Authorization", KEY)
    assert one.caller(ALICE).tenant != one.caller(BOB).tenant
    assert one.caller(ALICE).tenant != Tenancy("Authorization", b"x" * 32).caller(ALICE).tenant
    assert one.caller({}).tenant not in (one.caller(ALICE).tenant, b"")


def test_shared_tenants_share_but_keep_their_credentials():
    shared = Tenancy("Shared", KEY)
    assert shared.caller(ALICE).tenant == shared.caller(BOB).tenant == b""
    assert shared.caller(ALICE).credential != shared.caller(BOB).credential


def test_a_claim_unites_the_tokens_of_one_subject():
    by_subject = Tenancy("Authorization", KEY, "sub")

    def tenant(claims: object) -> bytes:
        return by_subject.caller({"Authorization": f"Bearer {token(claims)}"}).tenant

    assert tenant({"sub": "u1", "iat": 1}) == tenant({"sub": "u1", "iat": 2})
    assert tenant({"sub": "u1"}) != tenant({"sub": "u2"})
    assert tenant({"sub": "1"}) != tenant({"sub": 1})


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("", id="absent"),
        pytest.param("Bearer opaque", id="no-jwt"),
        pytest.param("Bearer a.!!!.c", id="not-base64"),
        pytest.param(f"Bearer {token(['sub'])}", id="not-an-object"),
        pytest.param(f"Bearer {token({'sub': ''})}", id="empty"),
        pytest.param(f"Bearer {token({'sub': {'a': 1}})}", id="not-a-word"),
    ],
)
def test_what_is_no_claim_leaves_the_whole_credential_as_tenant(authorization):
    assert jwt_claim(authorization, "sub") is None
