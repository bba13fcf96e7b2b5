"""Experiments on protected templates: what a scheme costs in recognition, and what a thief of templates gets."""
