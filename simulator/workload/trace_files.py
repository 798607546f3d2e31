"""Files of traces, plain or gzipped, opened so that whatever is wrong with them is said."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ...hardware_specs.errors import SpecError

_GZIP = b"\x1f\x8b"


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A file as text; what its reading raises becomes an error that names it.

    Raises
    ------
    SpecError : no such file, a folder, no text in UTF-8, no CSV or JSON
    """
    try:
        with path.open("rb") as file:
            is_gzip = file.read(len(_GZIP)) == _GZIP
        with (gzip.open if is_gzip else open)(path, "rt", encoding="utf-8-sig", newline="") as lines:
            yield lines
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise SpecError(f"no file {path}") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder; name a file in it") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise SpecError(f"{path} cannot be read as text, plain or gzipped: {error}") from None
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
