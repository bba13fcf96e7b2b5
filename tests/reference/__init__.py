"""Slow, obviously correct twins of fast code. Tests import them as `reference.NAME`."""
