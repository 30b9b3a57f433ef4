"""The supervisor's loop: which worker serves, which is made ready, which finishes, and when connections go past them all.

One worker serves at a time. A successor is started on the same sockets, and takes over once it takes connections; the one before then
finishes what it has begun. Where a worker is away or late, new connections are relayed until one is there.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from inference_cache_sidecar.supervisor.judging import Backoff, Health, Punctuality, health
from inference_cache_sidecar.supervisor.memory import Memory, MemoryWatch, Remedy, read_memory
from inference_cache_sidecar.supervisor.plan import DRAIN_SECONDS, Plan
from inference_cache_sidecar.supervisor.relaying import Relays
from inference_cache_sidecar.supervisor.shared_page import SLOTS, Count, SharedPage, new_page
from inference_cache_sidecar.supervisor.workers import Reason, Worker, reaped, start_worker

TICK_SECONDS: Final = 0.05
MEMORY_TICKS: Final = 10
MOST_WORKERS: Final = 4
RETIRED_SECONDS: Final = 900.0
"""What an old worker has for its streams; it is then told to end."""
ROUTED_SECONDS: Final = 5.0
"""Of a drain: from then on nobody routes requests here, and idle connections do not hold it up."""
GRACE_SECONDS: Final = 5.0
"""Beyond the time that a worker takes to end."""
WORKER_BYTES: Final = 300 << 20
"""What a worker takes before it has stored anything; measured once one serves."""
_log = logging.getLogger(__name__)


def supervise(plan: Plan) -> int:
    """Until SIGTERM or SIGINT; the exit status of the worker that served then."""
    return asyncio.run(_supervise(plan))


async def _supervise(plan: Plan) -> int:
    page = new_page()
    for descriptor in (page.descriptor, *(descriptor for front in plan.fronts for descriptor in front.descriptors)):
        os.set_inheritable(descriptor, True)
    supervisor = Supervisor(plan, page, os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    loop.add_signal_handler(signal.SIGCHLD, supervisor.turn)
    # `launching` has held them back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    return await supervisor.run()


class Supervisor:
    def __init__(self, plan: Plan, page: SharedPage, environment: Mapping[str, str]) -> None:
        self._plan = plan
        self._page = page
        self._environment = environment
        self._relays = Relays(plan.fronts, self._counted)
        self._relaying_since = 0.0
        now = time.monotonic()
        self._punctuality = Punctuality(TICK_SECONDS, now)
        self._backoff = Backoff()
        self._start_at = now
        self._active: Worker | None = None
        self._successor: Worker | None = None
        self._retired: list[Worker] = []
        self._memory: Memory | None = None
        self._memory_watch = MemoryWatch()
        self._worker_bytes = WORKER_BYTES
        self._ticks = 0
        self._wanted = False
        """A hand-over is to come."""
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        _log.info("supervising a cache worker")
        while not self._stopping.is_set():
            self.turn()
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                self._punctuality.ran(time.monotonic())
        return await self._ended()

    def stop(self) -> None:
        self._stopping.set()

    def turn(self) -> None:
        """Look, decide and act; after each tick, and when a child has ended."""
        now = time.monotonic()
        self._reap(now)
        if self._stopping.is_set():
            return
        self._relay_or_not(now)
        self._watch_memory(now)
        self._take_over(now)
        self._start_what_is_missing(now)
        self._hurry_retired(now)
        if self._page.drain_began and now - self._page.drain_began > ROUTED_SECONDS:
            self._relays.close_idle()
        self._relay_or_not(now)

    def _health(self, worker: Worker, now: float) -> Health:
        late = self._punctuality.late_seconds(self._page.beat_seconds(worker.slot), now)
        return health(self._page.accepting(worker.slot), late, now - worker.started)

    def _workers(self) -> list[Worker]:
        return [worker for worker in (self._active, self._successor, *self._retired) if worker is not None]

    def _relay_or_not(self, now: float) -> None:
        """Once on, it goes on until a worker has beaten since: a supervisor that was late itself knows nothing new."""
        serving = [worker for worker in (self._active, self._successor) if worker is not None and self._health(worker, now) is Health.WELL]
        if not self._relays.on and not serving:
            self._relaying_since = now
            self._relays.start()
            _log.warning("no cache worker takes connections: they go straight to the model server")
        elif self._relays.on and any(self._page.beat_seconds(worker.slot) > self._relaying_since for worker in serving):
            self._relays.stop()
            _log.info("the cache worker takes connections after %.2f s", now - self._relaying_since)

    def _take_over(self, now: float) -> None:
        active, successor = self._active, self._successor
        state = None if active is None else self._health(active, now)
        if active is not None and (state is Health.FROZEN or (state is Health.REPLACEABLE and self._ready(now))):
            _log.error("the cache worker %d has been silent for too long: it is killed", active.pid)
            active.signal(signal.SIGKILL)
            self._retire(active, now)
            self._count(Count.RESTARTS)
            self._active = active = None
        if successor is None:
            return
        if active is None:
            self._promote(now)
        elif successor.reason is Reason.STANDBY and state is Health.WELL:
            _log.info("the cache worker %d is back: its stand-in is ended", active.pid)
            self._push(successor)
            self._retire(successor, now)
            self._successor = None
        elif self._health(successor, now) is Health.FROZEN:
            successor.signal(signal.SIGKILL)
        elif successor.reason is Reason.HAND_OVER and self._ready(now):
            _log.info("worker %d takes over from worker %d", successor.pid, active.pid)
            self._page.retire(active.slot)
            self._retire(active, now)
            self._count(Count.HAND_OVERS)
            self._promote(now)

    def _ready(self, now: float) -> bool:
        return self._successor is not None and self._health(self._successor, now) is Health.WELL

    def _promote(self, now: float) -> None:
        self._active, self._successor = self._successor, None
        self._wanted = False
        if self._active is not None and self._health(self._active, now) is Health.WELL:
            self._worker_bytes = max(self._active.resident_bytes(), 1)

    def _retire(self, worker: Worker, now: float) -> None:
        worker.retired = now
        self._retired.append(worker)
        self._page.tell(Count.RETIRING, len(self._retired))

    def _push(self, worker: Worker) -> None:
        worker.pushed = True
        worker.signal(signal.SIGTERM)

    def _hurry_retired(self, now: float) -> None:
        for worker in self._retired:
            since = now - (worker.retired or now)
            if not worker.pushed and since > RETIRED_SECONDS:
                self._push(worker)
            elif since > (RETIRED_SECONDS if not worker.pushed else 0.0) + DRAIN_SECONDS + GRACE_SECONDS and worker.pushed:
                worker.signal(signal.SIGKILL)

    def _start_what_is_missing(self, now: float) -> None:
        active = self._active
        if active is None:
            room = self._has_room if self._retired else True
            if self._successor is None and now >= self._start_at and room and len(self._retired) < SLOTS - 1:
                self._active = self._started(Reason.START, now)
            return
        self._wanted |= self._page.asked_for_successor(active.slot)
        if self._successor is not None or len(self._workers()) >= MOST_WORKERS or now < self._start_at:
            return
        state = self._health(active, now)
        if state in (Health.SUSPECT, Health.REPLACEABLE):
            self._stand_in(active, state, now)
        elif self._wanted and state is Health.WELL and not self._page.drain_began:
            # The model server's hook waits for the answer of the worker that serves.
            self._hand_over(active, now)

    def _stand_in(self, active: Worker, state: Health, now: float) -> None:
        """Where there is no room for two, the silent one goes first."""
        if self._has_room:
            self._successor = self._started(Reason.STANDBY, now)
        elif state is Health.REPLACEABLE:
            active.signal(signal.SIGKILL)

    def _hand_over(self, active: Worker, now: float) -> None:
        """Where there is no room for two, the old one finishes first, and connections are relayed in between."""
        if self._has_room:
            self._successor = self._started(Reason.HAND_OVER, now)
        else:
            _log.info("there is no memory for two workers: worker %d finishes before the next one starts", active.pid)
            self._page.retire(active.slot)
            self._retire(active, now)
            self._active, self._wanted = None, False
            self._count(Count.HAND_OVERS)

    @property
    def _has_room(self) -> bool:
        return self._memory is None or self._memory.has_room_for(self._worker_bytes)

    def _started(self, reason: Reason, now: float) -> Worker | None:
        taken = {worker.slot for worker in self._workers()}
        slot = next(slot for slot in range(SLOTS) if slot not in taken)
        try:
            worker = start_worker(self._plan, self._page, slot, reason, now, self._environment)
        except OSError as error:
            self._start_at = now + self._backoff.after(0.0)
            _log.error("no cache worker can be started: %s", error.strerror)
            return None
        _log.info("started worker %d (%s)", worker.pid, reason.name.lower())
        return worker

    def _reap(self, now: float) -> None:
        for pid, status in reaped():
            if self._active is not None and pid == self._active.pid:
                self._lost(self._active, status, now)
                self._active = None
            elif self._successor is not None and pid == self._successor.pid:
                self._lost(self._successor, status, now)
                self._successor = None
            else:
                self._forget_retired(pid, status, now)

    def _forget_retired(self, pid: int, status: int, now: float) -> None:
        for worker in self._retired:
            if worker.pid == pid:
                _log.info("worker %d ended with status %d, %.1f s after it was replaced", pid, status, now - (worker.retired or now))
        self._retired = [worker for worker in self._retired if worker.pid != pid]
        self._page.tell(Count.RETIRING, len(self._retired))

    def _lost(self, worker: Worker, status: int, now: float) -> None:
        self._status = status
        if self._stopping.is_set():
            return
        wait = self._backoff.after(now - worker.started)
        self._start_at = now + wait
        self._count(Count.RESTARTS)
        _log.error("the cache worker %d ended with status %d; the next one starts in %g s", worker.pid, status, wait)

    def _watch_memory(self, now: float) -> None:
        self._ticks += 1
        if self._ticks % MEMORY_TICKS:
            return
        self._memory = read_memory(Path(self._plan.control_groups))
        if self._memory is None:
            return
        self._page.tell(Count.MEMORY_USED, self._memory.used)
        self._page.tell(Count.MEMORY_LIMIT, self._memory.limit)
        active = self._active
        if active is not None and self._page.accepting(active.slot):
            self._relieve(active, self._memory, self._memory_watch.remedy(self._memory, now))

    def _relieve(self, active: Worker, memory: Memory, remedy: Remedy) -> None:
        match remedy:
            case Remedy.NONE:
                return
            case Remedy.SHED:
                self._page.order_shedding(active.slot)
            case Remedy.RESTORE:
                self._page.order_restoring(active.slot)
            case Remedy.REPLACE:
                self._wanted = True
            case Remedy.KILL:
                active.signal(signal.SIGKILL)
        _log.warning("%d of %d bytes of the container's memory are in use: %s", memory.used, memory.limit, remedy.name.lower())

    def _counted(self, now: int, ever: int) -> None:
        self._page.tell(Count.RELAYED, now)
        self._page.tell(Count.RELAYED_EVER, ever)

    def _count(self, count: Count) -> None:
        self._page.tell(count, self._page.told(count) + 1)

    async def _ended(self) -> int:
        """No new connections; what is in flight has the time that a worker takes, relayed connections too."""
        _log.info("stopping: %d workers, %d relayed connections", len(self._workers()), len(self._relays))
        deadline = time.monotonic() + DRAIN_SECONDS + GRACE_SECONDS
        self._relays.close()
        for front in self._plan.fronts:
            if front.upstream is None:
                for descriptor in front.descriptors:
                    os.close(descriptor)
        for worker in self._workers():
            self._push(worker)
        while (self._workers() or self._relays) and time.monotonic() < deadline:
            await asyncio.sleep(TICK_SECONDS)
            self._reap(time.monotonic())
        for worker in self._workers():
            worker.signal(signal.SIGKILL)
            self._status = 128 + signal.SIGKILL
        self._relays.abort()
        return self._status
