"""Text files of data sets as editors and spreadsheets save them."""

from __future__ import annotations

import codecs
from pathlib import Path

from ppfr.core import DatasetError

_BOMS = (  # UTF-32 before UTF-16, whose mark begins like it
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8 or UTF-16, with or without byte order mark, without trailing blanks.

    Lines may end as on any system. Empty lines are kept, so that numbers in messages agree with editors, except at the
    end of the file.

    Raises:
        DatasetError: the file has another encoding.
    """
    data = path.read_bytes()
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), None)
    if encoding is None:
        # UTF-16 without a mark: the upper byte of ASCII is 0
        start = data[:64]
        is_wide = len(start) >= 2 and 0 in start
        encoding = ("utf-16-be" if start[0] == 0 else "utf-16-le") if is_wide else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not text in UTF-8 or UTF-16; save it as UTF-8") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line.rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def words_of(line: str) -> list[str]:
    """The words of a line: separated by tabs if it has any, so that words may contain blanks, else by blanks.

    >>> words_of("Ann Lee" + chr(9) + "1" + chr(9) + "4 "), words_of("Ann_Lee  1 4 ")
    (['Ann Lee', '1', '4'], ['Ann_Lee', '1', '4'])
    """
    words = line.strip().split("\t")
    return [word.strip() for word in words if word.strip()] if len(words) > 1 else line.split()
