"""Measurements on real processes, run by hand or by `make bench`: how fast, how much, how right. Not tests, and nothing imports them."""
