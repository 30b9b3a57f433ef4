"""A new version's files come to the nodes before its pods do: who fetches ahead, how far it is, and which way files take to pods.

`controller.reconciling` asks `prefetcher` in every round. Nothing is remembered but by the pods that fetch; what decides is pure.
"""
