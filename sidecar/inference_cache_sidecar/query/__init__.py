"""From a request's bytes to a `Query`, or to the reason why it must not be cached. Pure: no I/O."""
