"""What supervisor and worker tell each other: the page, the inheritance, the plan and the setting."""

import asyncio
import socket

import pytest

from inference_cache_contract.errors import SpecErrors
from inference_cache_sidecar.command import build_settings, read_layers
from inference_cache_sidecar.errors import CannotListen
from inference_cache_sidecar.settings import LISTEN, Address
from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE, Inherited, inherited_text, parse_inherited
from inference_cache_sidecar.supervisor.launching import bound, upstream_address
from inference_cache_sidecar.supervisor.plan import Front, Plan, parse_plan, plan_text
from inference_cache_sidecar.supervisor.shared_page import SLOTS, Count, WorkerPage, new_page
from inference_cache_sidecar.supervisor.worker_side import Duties, serve_under

GIVEN = ["--upstream", "http://127.0.0.1:18000"]
HANDED = Inherited((3, 4), (5,), (), 6, 1, 42)


def test_each_worker_has_its_own_place_in_the_page() -> None:
    page = new_page()
    workers = [WorkerPage(page.descriptor, slot) for slot in range(SLOTS)]
    workers[1].beat()
    workers[1].accept()
    workers[2].ask_for_successor()
    page.order_shedding(3)
    page.order_restoring(4)
    page.retire(SLOTS - 1)
    assert [page.beat_seconds(slot) > 0 for slot in range(3)] == [False, True, False]
    assert [page.accepting(slot) for slot in range(3)] == [False, True, False]
    assert [page.asked_for_successor(slot) for slot in range(4)] == [False, False, True, False]
    assert [worker.shedding_orders for worker in workers[2:5]] == [0, 1, 0]
    assert [worker.restoring_orders for worker in workers[2:5]] == [0, 0, 1]
    assert [worker.retired for worker in workers] == [False] * (SLOTS - 1) + [True]


async def test_a_worker_does_once_what_its_supervisor_orders() -> None:
    page, done = new_page(), list[str]()

    async def retire() -> None:
        done.append("retire")

    duties = Duties(lambda: done.append("shed"), lambda: done.append("restore"), retire, lambda: done.append("ended"))
    serving = asyncio.create_task(serve_under(WorkerPage(page.descriptor, 0), duties))
    async with asyncio.timeout(20):
        for order, last in ((page.order_shedding, "shed"), (page.order_restoring, "restore"), (page.retire, "ended")):
            while not page.accepting(0):
                await asyncio.sleep(0.01)
            order(0)
            while last not in done:
                await asyncio.sleep(0.01)
        await serving
    assert done == ["shed", "restore", "retire", "ended"]


def test_a_place_is_empty_for_the_next_worker() -> None:
    page = new_page()
    worker = WorkerPage(page.descriptor, 0)
    worker.beat()
    worker.accept()
    worker.ask_for_successor()
    page.clear(0)
    assert (page.beat_seconds(0), page.accepting(0), page.asked_for_successor(0)) == (0.0, False, False)


def test_a_drain_waits_for_relayed_connections_and_for_old_workers_but_not_for_itself() -> None:
    page = new_page()
    page.tell(Count.RELAYED, 3)
    page.tell(Count.RETIRING, 1)
    page.retire(0)
    assert WorkerPage(page.descriptor, 0).relayed() == 3
    assert WorkerPage(page.descriptor, 1).relayed() == 4


def test_what_is_handed_to_a_worker_and_to_a_supervisor_comes_through_as_text() -> None:
    plan = Plan((Front("listen", (3,), ("::1", 80)), Front("admin", (4, 5), None)), ("--upstream", "http://[::1]:80"), "debug", "/groups")
    assert parse_inherited(inherited_text(HANDED)) == HANDED
    assert parse_inherited("") is None
    assert parse_plan(plan_text(plan)) == plan
    assert plan.descriptors("admin") == (4, 5)
    assert plan.descriptors("features") == ()


@pytest.mark.parametrize(
    ("flags", "variables", "expected"),
    [
        pytest.param([], {}, False, id="default"),
        pytest.param(["--supervise"], {}, True, id="flag"),
        pytest.param([], {"INFERENCE_CACHE_SUPERVISE": "true"}, True, id="variable"),
        pytest.param(["--no-supervise"], {"INFERENCE_CACHE_SUPERVISE": "true"}, False, id="flag-beats-variable"),
    ],
)
def test_supervision_is_a_setting_of_the_process(flags: list[str], variables: dict[str, str], expected: bool) -> None:
    layers, _ = read_layers([*GIVEN, *flags], variables)
    assert build_settings(layers).supervise is expected


def test_a_worker_knows_what_it_has_inherited() -> None:
    layers, _ = read_layers([*GIVEN, "--supervise"], {INHERITED_VARIABLE: inherited_text(HANDED)})
    assert build_settings(layers).inherited == HANDED
    assert not layers.warnings()


@pytest.mark.parametrize("variable", ["INFERENCE_CACHE_SUPERVISE", INHERITED_VARIABLE])
def test_a_variable_that_cannot_be_read_is_named(variable: str) -> None:
    layers, _ = read_layers(GIVEN, {variable: "perhaps"})
    with pytest.raises(SpecErrors, match=r"is not true or false|by the supervisor alone"):
        build_settings(layers)


def test_bytes_go_straight_only_to_a_plain_upstream() -> None:
    assert upstream_address("http://[::1]:18000") == ("::1", 18000)
    assert upstream_address("http://model") == ("model", 80)
    assert upstream_address("https://model") is None


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(CannotListen, match=f"--listen: {address}: Address already in use"):
            bound(LISTEN, address)
