"""Named files: locations, checksums, download; atomic writing; result records as files."""

from ppfr.assets._archives import extract_tar as extract_tar
from ppfr.assets._assets import Asset as Asset
from ppfr.assets._assets import find_asset as find_asset
from ppfr.assets._assets import sha256_of as sha256_of
from ppfr.assets._assets import verify_asset as verify_asset
from ppfr.assets._download import fetch as fetch
from ppfr.assets._files import write_atomically as write_atomically
from ppfr.assets._records import read_record as read_record
from ppfr.assets._records import write_json as write_json
from ppfr.assets._records import write_record as write_record
from ppfr.assets._roots import DATA_VARIABLE as DATA_VARIABLE
from ppfr.assets._roots import WEIGHTS_VARIABLE as WEIGHTS_VARIABLE
from ppfr.assets._roots import data_root as data_root
from ppfr.assets._roots import weights_root as weights_root
