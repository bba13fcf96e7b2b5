"""Named files: locations, checksums, download; atomic writing, private and SQLite files; result records as files."""

from ppfr.assets._archives import extract_tar as extract_tar
from ppfr.assets._assets import Asset as Asset
from ppfr.assets._assets import find_asset as find_asset
from ppfr.assets._assets import sha256_of as sha256_of
from ppfr.assets._assets import verify_asset as verify_asset
from ppfr.assets._download import fetch as fetch
from ppfr.assets._files import write_atomically as write_atomically
from ppfr.assets._private_files import check_private as check_private
from ppfr.assets._private_files import create_private as create_private
from ppfr.assets._private_files import make_directory as make_directory
from ppfr.assets._private_files import sync_directory as sync_directory
from ppfr.assets._records import read_record as read_record
from ppfr.assets._records import write_json as write_json
from ppfr.assets._records import write_record as write_record
from ppfr.assets._roots import DATA_VARIABLE as DATA_VARIABLE
from ppfr.assets._roots import WEIGHTS_VARIABLE as WEIGHTS_VARIABLE
from ppfr.assets._roots import data_root as data_root
from ppfr.assets._roots import weights_root as weights_root
from ppfr.assets._sqlite_files import create_sqlite as create_sqlite
from ppfr.assets._sqlite_files import limit_values as limit_values
from ppfr.assets._sqlite_files import sqlite_errors as sqlite_errors
