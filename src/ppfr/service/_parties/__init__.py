"""The parties of secure matching as server processes: servers, client, configuration files, certificates."""

from ppfr.service._parties._certificates import make_certificates as make_certificates
from ppfr.service._parties._client import SecureGalleryClient as SecureGalleryClient
from ppfr.service._parties._credentials import fingerprint_of_file as fingerprint_of_file
from ppfr.service._parties._server import PartyServer as PartyServer
from ppfr.service._parties._settings import ClientRights as ClientRights
from ppfr.service._parties._settings import ClientSettings as ClientSettings
from ppfr.service._parties._settings import PartySettings as PartySettings
from ppfr.service._parties._stores import create_store as create_store
from ppfr.service._parties._stores import open_store as open_store
from ppfr.service._parties._thresholds import write_threshold_files as write_threshold_files
from ppfr.service._parties._trial import write_trial as write_trial
