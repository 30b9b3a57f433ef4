from inference_cache_sidecar.breaker import Breaker, BreakerSettings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _opened(clock: Clock) -> Breaker:
    breaker = Breaker(BreakerSettings(failures=3, retry_seconds=5), clock)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_opens_after_failures_in_a_row() -> None:
    breaker = _opened(Clock())
    assert breaker.is_open
    assert not breaker.allows()


def test_a_success_between_keeps_it_closed() -> None:
    breaker = Breaker(BreakerSettings(failures=2), Clock())
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert not breaker.is_open
    assert breaker.allows()


def test_lets_one_trial_through_each_while() -> None:
    clock = Clock()
    breaker = _opened(clock)
    clock.now += 4.9
    assert not breaker.allows()
    clock.now += 0.2
    assert [breaker.allows(), breaker.allows()] == [True, False]
    clock.now += 5
    assert breaker.allows()


def test_failed_trial_keeps_it_open_and_a_good_one_closes_it() -> None:
    clock = Clock()
    breaker = _opened(clock)
    clock.now += 5
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    clock.now += 5
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows(), breaker.allows()] == [True, True]
