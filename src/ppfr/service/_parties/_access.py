"""Who may connect to a party: the configured clients, the other parties, and revoked certificates."""

from __future__ import annotations

import dataclasses
import logging
import threading
import weakref
from typing import final

from ppfr.core import InvalidInputError, PartyError
from ppfr.secure import NUM_PARTIES
from ppfr.service._parties._credentials import party_name
from ppfr.service._parties._links import Link
from ppfr.service._parties._settings import ClientRights, PartySettings

_log = logging.getLogger("ppfr.party")
_RELOADED = ("clients", "revoked", "subject_budget_bits", "search_budget_bits")
_KEYS_OF = {
    "parameters": ("gallery", "dim", "values"),
    "addresses": ("parties",),
    "credentials": ("certificate", "key", "authority"),
}


class UnknownClientError(PartyError):
    """The certificate of a client names no configured client."""

    key = "clients"


@final
class Access:
    """The clients and revoked certificates of a party; both can be replaced while the party runs.

    Args:
        settings: of the party.
    """

    def __init__(self, settings: PartySettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()

    def rights_of(self, client: str) -> ClientRights:
        """The current rights of a client.

        Raises:
            InvalidInputError: the client is not configured any more.
        """
        try:
            return self._settings.clients[client]
        except KeyError:
            raise InvalidInputError(
                f"Client {client!r} is not in the configuration of party {self._settings.party} any more."
            ) from None

    def client_of(self, link: Link) -> str | None:
        """The configured client that a certificate names; None if there is none."""
        return next((name for name in link.names if name in self._settings.clients), None)

    def name(self, link: Link) -> None:
        """Name a connection after the certificate of the peer."""
        for party in range(NUM_PARTIES):
            if party_name(party) in link.names and party != self._settings.party:
                link.peer, link.party = f"party {party}", party
                return
        link.peer = f"client {(self.client_of(link) or next(iter(link.names), 'without a name'))!r}"

    def admit(self, link: Link) -> PartyError | None:
        """Register a connection, so that it ends when its certificate is revoked or its client is removed.

        Returns:
            Why the connection must be refused; None if it is allowed.
        """
        with self._lock:
            self._links.add(link)
        try:
            link.check_certificate(self._settings.revoked)
        except PartyError as error:
            return error
        if link.party is None and self.client_of(link) is None:
            return UnknownClientError(
                f"{link.peer_at_start} is not in the configuration of party {self._settings.party} (fingerprint of its "
                f"certificate: {link.fingerprint})."
            )
        return None

    def replace(self, settings: PartySettings) -> None:
        """Put other clients and revoked certificates into force; connections that are no longer allowed are closed.

        Other keys stay as they were at the start; the log names those that differ.
        """
        names = [field.name for field in dataclasses.fields(settings) if field.name not in _RELOADED]
        differing = [name for name in names if getattr(settings, name) != getattr(self._settings, name)]
        if differing:
            keys = ", ".join(key for name in differing for key in _KEYS_OF.get(name, (name,)))
            _log.warning("changed in the configuration, but in force only after a restart: %s", keys)
        with self._lock:
            reloaded = {name: getattr(settings, name) for name in _RELOADED}
            self._settings = dataclasses.replace(self._settings, **reloaded)
            links = list(self._links)
        for link in links:
            is_removed = link.party is None and self.client_of(link) is None
            if is_removed or link.fingerprint in settings.revoked:
                _log.info(
                    "closed %s fingerprint=%s: %s", link.peer, link.fingerprint, "removed" if is_removed else "revoked"
                )
                link.interrupt()
