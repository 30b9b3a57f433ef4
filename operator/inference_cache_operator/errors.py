"""The operator's errors, by who is to blame."""


class OperatorError(Exception):
    """Anything below."""


class ClusterError(OperatorError):
    """The API server did not do what was asked."""

    def __init__(self, what: str, said: str = "") -> None:
        self.what = what
        """The call, as `PATCH /api/v1/namespaces/llm/pods/a`."""
        self.said = said
        """By the API server: never the body that was sent."""
        super().__init__(f"{what}: {said}" if said else what)


class ClusterUnreachable(ClusterError):
    """It is down, overloaded or too slow: worth another try."""


class NotThere(ClusterError):
    """There is no such object, or no such kind."""


class Conflicting(ClusterError):
    """Somebody else owns the field, or wrote since we read."""


class NotAllowed(ClusterError):
    """The operator's role lacks a verb, or its credentials are refused."""


class TooMany(ClusterError):
    """Refused for now; of an eviction: a disruption budget is used up."""


class BadObject(ClusterError):
    """The API server refuses what we sent: a mistake of ours, or a policy of the cluster."""


class NotLeading(OperatorError):
    """Another replica may be the leader by now, so that nothing is written."""


class CannotListen(OperatorError):
    """An address of the settings is taken, or not ours."""

    def __init__(self, address: object, why: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}")


class WatchEnded(OperatorError):
    """kopf gave up watching the resources; the process cannot go on without."""
