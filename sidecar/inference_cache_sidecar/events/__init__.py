"""Events from outside that make kept answers and features wrong: read from where they come, checked, carried out, acknowledged.

What an event says stands in `payloads`, what becomes of it in `handling`, what it makes unreachable in `flushing`; `redis_stream`,
`pubsub` and `kafka` are the places that events come from. How epochs are kept and shared is not known here.
"""
