"""A stand-in for vLLM: answers in its form, at a chosen pace, with chosen faults; the demo, the tests and the benchmarks put it upstream.

Not a model: its answers are derived from the request alone, so that an answer shows which question it belongs to.
"""
