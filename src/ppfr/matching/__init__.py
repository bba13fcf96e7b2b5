"""Comparators: similarity scores of probes with the references of a gallery. Higher is more similar."""

from ppfr.matching._exact import ExactMatcher as ExactMatcher
from ppfr.matching._gallery import KeyedGallery as KeyedGallery
from ppfr.matching._keyed import KeyedMatcher as KeyedMatcher
