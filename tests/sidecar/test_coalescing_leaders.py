"""Replicas that ask upstream for others, and go: by dying, pausing, closing, or because their callers leave."""

import asyncio
from dataclasses import replace

import pytest
from tests.sidecar.coalescing_replicas import (
    KEY,
    KEYS,
    LASTING,
    LOOKING_LATE,
    PATIENCE,
    SHORT,
    Model,
    agreed_anew,
    follows,
    heard,
    lease_of,
    led,
    starting,
    until,
    whole,
    within,
)

from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.errors import UpstreamAborted

pytestmark = pytest.mark.slow

start = starting
HEARD_LONG = replace(LASTING, renew_seconds=20.0)
"""Who waits is known to wait for 50 s."""


async def test_a_holder_that_never_was_costs_exactly_one_call(start, redis):
    with redis.client() as client:
        client.set(KEYS.flight(KEY).decode(), "0123456789abcdef" * 2 + "o.", px=600_000)
        model = Model()
        replicas = [start() for _ in range(3)]
        readers = [replica.fly(model) for replica in replicas]
        await until(lambda: all(map(follows, replicas)))
        client.pexpire(KEYS.flight(KEY).decode(), 1)
    await until(lambda: model.calls == 1 and agreed_anew(replicas))
    model.say(b"one", None)
    assert [await whole(reader) for reader in readers] == [b"one"] * 3
    assert model.calls == 1


async def test_a_dead_leader_costs_exactly_one_call_more(start):
    model, again = Model(), Model()
    leader, others = start(terms=SHORT), [start() for _ in range(3)]
    leader.fly(model)
    await until(model.asked.is_set)
    readers = [other.fly(again) for other in others]
    await until(lambda: all(map(follows, others)))
    await leader.cut_off()
    await until(lambda: again.calls == 1 and agreed_anew(others))
    again.say(b"one", None)
    assert [await whole(reader) for reader in readers] == [b"one"] * 3
    assert (model.calls, again.calls) == (1, 1)


async def test_a_leader_that_dies_in_mid_answer_breaks_it_off(start):
    model = Model()
    leader, _, _, readers = await led(start, model, followers=2, terms=SHORT)
    model.say(b"one")
    for reader in readers:
        await heard(reader, 3)
    await leader.cut_off()
    for reader in readers:
        with pytest.raises(UpstreamAborted):
            await whole(reader)
    assert model.calls == 1


async def test_a_leader_that_dies_in_a_plain_answer_costs_one_call_more(start):
    model, again = Model(events=False), Model(events=False)
    leader, other = start(terms=SHORT), start()
    leader.fly(model)
    await until(model.asked.is_set)
    reader = other.fly(again)
    await until(lambda: follows(other))
    model.say(b"half")
    await until(lambda: any(teller._told for teller in leader.coalescer._tellers.values()))
    await leader.cut_off()
    again.say(b"whole", None)
    assert await whole(reader) == b"whole"
    assert (model.calls, again.calls) == (1, 1)


async def test_a_leader_whose_lease_is_gone_learns_it_at_the_next_look(start, redis):
    model, leader = Model(), start(terms=Terms(lease_seconds=600.0))
    leader.fly(model)
    await until(model.asked.is_set)
    lease = next(iter(leader.coalescer._leases._leases))
    with redis.client() as client:
        client.delete(KEYS.flight(KEY).decode())
    await until(lambda: not leader.coalescer._leases.holds(lease))


async def test_a_leader_whose_last_caller_leaves_goes_on_for_those_elsewhere(start):
    model = Model()
    leader, leading, _, (reader,) = await led(start, model, terms=HEARD_LONG)
    await until(lambda: any(teller.is_heard for teller in leader.coalescer._tellers.values()))
    model.say(b"one ")
    await heard(reader, 4)
    leader.flights.leave(leading)
    model.say(b"two", None)
    assert await whole(reader) == b"one two"
    assert model.calls == 1


async def test_who_comes_after_the_last_follower_left_sees_all_of_it(start):
    model = Model()
    leader, leading, (other,), (reader,) = await led(start, model, terms=SHORT)
    teller = next(iter(leader.coalescer._tellers.values()))
    model.say(b"one ")
    await heard(reader, 4)
    other.flights.leave(reader)
    await until(lambda: len(leading.flight.readers) == 1)
    assert not teller.is_heard
    model.say(b"two ")
    await heard(leading, 8)
    late = start(terms=SHORT)
    following = late.fly(model)
    assert await heard(following, 8) == b"one two "
    model.say(b"three", None)
    assert await whole(following) == b"one two three"
    assert model.calls == 1


async def test_the_last_one_leaving_anywhere_ends_the_call(start):
    model = Model()
    leader, leading, (other,), (reader,) = await led(start, model, terms=SHORT)
    model.say(b"one")
    await heard(reader, 3)
    leader.flights.leave(leading)
    other.flights.leave(reader)
    await until(lambda: not leader.flights)
    assert model.ended == 1


async def test_an_answer_given_up_before_it_was_seen_that_somebody_waits_is_asked_for_once_more(start):
    model = Model()
    leader, leading, _, (reader,) = await led(start, model, terms=LOOKING_LATE)
    model.say(b"one")
    await heard(leading, 3)
    leader.flights.leave(leading)
    await until(lambda: model.calls == 2)
    model.say(b"two", None)
    assert await whole(reader) == b"two"


async def test_who_leaves_follows_no_more_whenever_that_is(start):
    """Also in the middle of a call to the store."""
    model = Model()
    leader, other = start(), start()
    leading = leader.fly(model)
    await until(model.asked.is_set)
    for number in range(1, 41):
        reader = other.fly(model)
        model.say(b"x")
        await heard(reader, number)
        other.flights.leave(reader)
        await until(lambda: not other.flights)
    assert (model.calls, leading.flight.size) == (1, 40)


async def test_a_leader_that_closes_hands_over_before_the_first_token(start):
    model = Model()
    leader, _, _, (reader,) = await led(start, model)
    await leader.close()
    await until(lambda: model.calls == 2)
    model.say(b"one", None)
    assert await whole(reader) == b"one"


async def test_a_leader_that_drains_waits_for_those_elsewhere(start):
    model = Model()
    leader, _, _, (reader,) = await led(start, model, terms=HEARD_LONG)
    model.say(b"one")
    await heard(reader, 3)
    draining = asyncio.create_task(leader.coalescer.drain(PATIENCE))
    model.say(None)
    assert await whole(reader) == b"one"
    async with within():
        await draining
    assert not leader.coalescer._tellers


async def test_a_paused_leader_writes_where_nobody_reads(start, redis):
    """It wakes up and goes on, when another has long taken its lease."""
    old, new = Model(), Model()
    leader = start(terms=LOOKING_LATE)
    leading = leader.fly(old)
    await until(old.asked.is_set)
    with redis.client() as client:
        client.delete(KEYS.flight(KEY).decode())
    second, third = start(), start()
    readers = [second.fly(new)]
    await until(new.asked.is_set)
    readers.append(third.fly(new))
    await until(lambda: follows(third))
    lease = next(iter(leader.coalescer._leases._leases))
    lease.waited_for = asyncio.get_running_loop().time()
    lease.stirred.set()
    old.say(b"old", None)
    assert await whole(leading) == b"old"
    await until(lambda: not leader.coalescer._tellers)
    new.say(b"new", None)
    assert [await whole(reader) for reader in readers] == [b"new", b"new"]
    assert not second.coalescer._leases.holds(lease)
    assert (old.calls, new.calls) == (1, 1)


async def test_leaders_that_die_one_after_the_other_are_not_waited_for_for_ever(start, redis):
    model, replica = Model(), start(terms=Terms(lease_seconds=0.3, renew_seconds=0.1, retries=1))

    async def hold() -> None:
        number = 0
        while True:
            number += 1
            with redis.client() as client:
                client.set(KEYS.flight(KEY).decode(), f"{number:032x}o.", px=600_000)
            await asyncio.sleep(0.05)

    holding = asyncio.create_task(hold())
    await until(lambda: lease_of(redis))
    replica.fly(model)
    await until(lambda: model.calls == 1)
    holding.cancel()
    assert replica.coalescer.counts.alone == 1
