"""Comparators: probes against a gallery, higher is more alike."""
