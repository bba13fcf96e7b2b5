"""The share store that a party's configuration names."""

from __future__ import annotations

import contextlib

from ppfr.core import InvalidInputError
from ppfr.secure import ShareStore
from ppfr.service._parties._settings import PartySettings


def create_store(settings: PartySettings) -> ShareStore:
    """Create the empty store that a configuration names.

    Raises:
        InvalidInputError: the file exists.
        StorageError: the file cannot be written.
    """
    parameters = settings.parameters
    return ShareStore.create(
        settings.store, party=settings.party, fixed_point=parameters.fixed_point, gallery_id=parameters.gallery_id
    )


def open_store(settings: PartySettings) -> ShareStore:
    """Open the store that a configuration names.

    Raises:
        InvalidInputError: the store is that of another party or has other parameters.
        CorruptTemplateError, OutdatedTemplateError, StorageError: as for `ShareStore.open`.
    """
    with contextlib.ExitStack() as undo:
        store = undo.enter_context(ShareStore.open(settings.store))
        _check_store(store, settings)
        undo.pop_all()
    return store


def _check_store(store: ShareStore, settings: PartySettings) -> None:
    configured = settings.parameters
    if store.party != settings.party:
        raise InvalidInputError(
            f"{store.path} is the store of party {store.party}, the configuration is that of party {settings.party}."
        )
    if store.fixed_point != configured.fixed_point:
        raise InvalidInputError(
            f"{store.path} has {store.fixed_point}, the configuration has {configured.fixed_point}. Correct dim and "
            "values, or create another store with `ppfr party init`."
        )
    if store.gallery_id != configured.gallery_id:
        raise InvalidInputError(
            f"{store.path} is of another gallery than the configuration. Correct `gallery`, or create another store "
            "with `ppfr party init`."
        )
