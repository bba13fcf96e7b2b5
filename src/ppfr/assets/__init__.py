"""Named files: where they are, what their checksum is, how to get them, and writing files whole or not at all."""

from ppfr.assets._files import write_atomically as write_atomically
