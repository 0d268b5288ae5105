"""The consumer side of the feed: every record once, receipts only after the commit.

A process of its own that knows nothing of the head-end but its messages; another billing system
could stand in its place.
"""
