"""The caching proxy in front of one model server.

Runs anywhere: it needs no cluster and no Redis. Knows the contract, never the operator. Everything is put together in `app`;
nothing below it reads the environment or a module global.
"""
