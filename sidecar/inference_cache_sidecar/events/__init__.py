"""Events from outside that make kept answers and features wrong: read from where they come, checked, carried out, acknowledged.

What an event says stands in `payloads`, what is done about it in `handling`; each other module is one place that events come from.
What a flush does is not known here.
"""
