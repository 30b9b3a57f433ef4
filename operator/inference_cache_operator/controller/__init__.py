"""Watches resources and brings pods, templates and statuses to what `versions` and `audit` decide; no decision is made here.

`running` and its workers call `reconciling` for one resource at a time; `app` makes it all.
"""
