"""The command line: parses arguments, calls `ppfr.workflows`, prints the result and exits."""

from ppfr.cli import _analysis as _analysis
from ppfr.cli import _match as _match
from ppfr.cli import _parties as _parties
from ppfr.cli import _photos as _photos
from ppfr.cli import _runs as _runs
from ppfr.cli import _store as _store
from ppfr.cli import _systems as _systems
from ppfr.cli._app import app as app
from ppfr.cli._app import main as main
from ppfr.cli._app import run as run
