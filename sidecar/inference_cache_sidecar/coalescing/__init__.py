"""One upstream call for equal queries, also where several replicas share a store: leases, what their holders tell, and who reads it.

`flying` calls a `Coalescer`. Whatever fails here costs upstream a call more, never a client its answer.
"""
