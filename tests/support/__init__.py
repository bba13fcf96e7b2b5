"""Shared helpers of the tests: the only ones."""
