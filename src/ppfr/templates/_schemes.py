"""All schemes by scheme id, and the scheme of a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from ppfr.core import OutdatedTemplateError, TemplateScheme, UnknownSchemeError
from ppfr.templates._controls import ConstantTemplates, UnprotectedTemplates
from ppfr.templates._identity_mapping import IdentityMapping
from ppfr.templates._records import Record, parse_record

SCHEMES: Mapping[str, Callable[..., TemplateScheme]] = MappingProxyType(
    {"identity-mapping": IdentityMapping, "unprotected": UnprotectedTemplates, "constant": ConstantTemplates}
)
"""Scheme id -> class."""

_OF_RECORD: Mapping[str, Callable[[Record], TemplateScheme]] = {
    "identity-mapping": IdentityMapping.of_record,
    "unprotected": UnprotectedTemplates.of_record,
    "constant": ConstantTemplates.of_record,
}


def scheme_of(record: bytes, *, kind: Literal["template", "key"] = "template") -> TemplateScheme:
    """The scheme, with its parameters, under which a template or key record was made.

    Raises:
        CorruptTemplateError: the bytes are not a record of this kind, are truncated, or were altered.
        UnknownSchemeError: this release does not have the scheme.
        OutdatedTemplateError: this release does not read the version.
    """
    parsed = parse_record(record, kind=kind)
    if parsed.scheme_id not in _OF_RECORD:
        raise UnknownSchemeError(
            f"this release does not have the scheme of the record; it has {', '.join(sorted(_OF_RECORD))}"
        )
    scheme = _OF_RECORD[parsed.scheme_id](parsed)
    if parsed.scheme_version != scheme.version:
        raise OutdatedTemplateError(
            f"the record has version {parsed.scheme_version} of {parsed.scheme_id}, but this release reads "
            f"{scheme.version}; enrol again, or use the release that wrote it"
        )
    return scheme
