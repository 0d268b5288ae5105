"""Tests of the project. Shared helpers stand in tests.support."""
