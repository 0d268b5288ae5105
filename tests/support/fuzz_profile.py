"""Loaded by `make fuzz` (`-p tests.support.fuzz_profile`): the same property tests, for longer."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=5_000, deadline=None)
settings.load_profile("fuzz")
