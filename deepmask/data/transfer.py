"""One file from the network or from a folder of files: whole, checked, and resumed where an attempt broke off.

A file has its name only after its checksum was right; until then it is NAME.part.  Which bytes a part holds needs no
other proof than that checksum, so a part may be continued from another server.  Proxies and certificates are those of
the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import requests
import urllib3.exceptions as causes
from tqdm import tqdm

from deepmask import paths
from deepmask.data.sources import Source

CHUNK = 1 << 16  # bytes; less than this is lost where a connection breaks
LONGEST_PAUSE = 60.0  # seconds between attempts
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # answers that another attempt may change


class DownloadError(RuntimeError):
    """A file cannot be had; the message names it, says why and what to do."""


class Fetched(NamedTuple):
    """A file whose checksum is right."""

    path: Path
    bytes: int
    sha256: str


class _Again(Exception):
    """An attempt failed in a way that the next may not; `pause` is what the server asks for, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def fetch(
    source: Source,
    folder: Path,
    mirror: str | None = None,
    *,
    timeout: float = 60.0,
    attempts: int = 6,
    pause: float = 1.0,
) -> Fetched:
    """The file of `source` in `folder`, fetched unless it is there; its checksum is computed in either case.

    `mirror` is the base of other addresses, or a folder; an archive of a folder is used where it is.  `timeout`:
    seconds without a byte after which an attempt is over; `attempts`: in a row that bring nothing more before it is
    given up, with pauses of `pause` seconds, doubled each time.  Raises DownloadError.
    """
    path, origin = folder / source.name, address(source, mirror)
    if path.exists():
        return _checked(source, path, "remove it, so that it is fetched again")
    part = path.with_name(path.name + ".part")
    if isinstance(origin, Path):
        if not origin.is_file():
            raise DownloadError(f"{origin}: no such file; DEEPMASK_MIRROR has to be a folder that holds {source.name}")
        if source.folder is not None:
            return _checked(source, origin, "replace it, or name another mirror")
        shutil.copyfile(origin, part)
    else:
        _receive(source, origin, part, timeout, attempts, pause)
    try:
        fetched = _checked(source, part, f"it came from {_shown(origin)} and is removed; try again, or another mirror")
    except DownloadError:
        part.unlink()
        raise
    os.replace(part, path)
    return fetched._replace(path=path)


def address(source: Source, mirror: str | None) -> str | Path:
    """Where `source` is fetched from: an address, or a file of a folder.  Raises DownloadError."""
    if not mirror:
        return source.url
    scheme = urlsplit(mirror).scheme
    if scheme in ("http", "https"):
        return f"{mirror.rstrip('/')}/{quote(source.name)}"
    if scheme == "file":
        return Path(unquote(urlsplit(mirror).path)) / source.name
    if scheme:
        raise DownloadError(f"DEEPMASK_MIRROR={_shown(mirror)}: expected http://, https://, file:// or a folder")
    return paths.REPOSITORY / Path(mirror).expanduser() / source.name


def sha256(path: Path) -> str:
    """The checksum of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file, _bar(f"check {path.name}", path.stat().st_size) as bar:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _checked(source: Source, path: Path, remedy: str) -> Fetched:
    size = path.stat().st_size
    if source.exact and size != source.bytes:
        raise DownloadError(f"{path}: has {size:,} bytes and not {source.bytes:,}; {remedy}")
    digest = sha256(path)
    if not source.matches(digest):
        raise DownloadError(f"{path}: has SHA-256 {digest[:16]}... and not {source.sha256[:16]}...; {remedy}")
    return Fetched(path, size, digest)


def _receive(source: Source, url: str, part: Path, timeout: float, attempts: int, pause: float) -> None:
    """Write all bytes of `url` to `part`, in as many attempts as it takes."""
    most, failed, reached = _size(part), 0, False
    with requests.Session() as session, _bar(source.name, source.bytes, most) as bar:
        while True:
            try:
                return _attempt(session, source, url, part, timeout, bar)
            except _Again as error:
                reason, asked = str(error), error.pause
            except requests.RequestException as error:  # before any other: it is an OSError too
                reason, asked = _reason(error), 0.0
                if not reached and _size(part) == most and _is_final(error):
                    raise _error(source, url, reason) from None
            except OSError as error:
                what = (
                    f"cannot be written ({error.strerror}); free space, or name another place with DEEPMASK_DOWNLOADS"
                )
                raise DownloadError(f"{part}: {what}") from None
            size = _size(part)
            reached = reached or size > most
            most, failed = max(most, size), 0 if size > most else failed + 1
            if failed >= attempts:
                raise _error(source, url, f"{reason}, {attempts} times in a row")
            time.sleep(min(max(pause * 2**failed, asked), LONGEST_PAUSE))


def _attempt(session: requests.Session, source: Source, url: str, part: Path, timeout: float, bar: tqdm) -> None:
    """Receive what `part` lacks, or everything where the server cannot send a rest; raises unless it is whole."""
    limit = source.bytes if source.exact else 2 * source.bytes
    start = _size(part)
    if start > limit:
        part.unlink()
        start = 0
    if source.exact and start == source.bytes:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=timeout) as reply:
        first, total = _range(reply)
        if reply.status_code == 416 and start and total == start and not source.exact:
            return
        if reply.status_code == 416 or (reply.status_code == 206 and first != start):
            part.unlink(missing_ok=True)  # next time without a range
            raise _Again("the server has no such range of it")
        if reply.status_code in RETRIED:
            asked = reply.headers.get("Retry-After", "")
            raise _Again(_status(reply), float(asked) if asked.isdecimal() else 0.0)
        if reply.status_code not in (200, 206):
            raise _error(source, url, _status(reply))
        if reply.status_code == 200:
            start, total = 0, _number(reply.headers.get("Content-Length"))
        if total is not None and (total > limit or (source.exact and total != source.bytes)):
            about = "" if source.exact else "about "
            raise _error(source, url, f"has {total:,} bytes and not {about}{source.bytes:,}, so it is another file")
        size = bar.n = start
        with open(part, "ab" if start else "wb") as file:
            for chunk in reply.iter_content(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise _error(source, url, f"sends more than {limit:,} bytes, so it is another file")
                file.write(chunk)
                bar.update(len(chunk))
    if size != (source.bytes if source.exact else total or size):
        raise _Again(f"ended after {size:,} bytes")


def _is_final(error: requests.RequestException) -> bool:
    """Whether an error of the first contact would be the same again: no route, no trust, or no sense in the address."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    no_route = isinstance(cause, (causes.NewConnectionError, causes.ConnectTimeoutError))
    kinds = (requests.exceptions.ProxyError, requests.exceptions.SSLError, requests.TooManyRedirects, ValueError)
    return no_route or isinstance(error, kinds)


def _reason(error: requests.RequestException) -> str:
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy of HTTP_PROXY or HTTPS_PROXY refuses or is not there"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted, unless REQUESTS_CA_BUNDLE names your authority's"
    if isinstance(cause, causes.NameResolutionError):
        return "its host is not known here, unless HTTP_PROXY and HTTPS_PROXY name a proxy that knows it"
    if isinstance(cause, causes.NewConnectionError):
        return "its host refuses the connection, unless HTTP_PROXY and HTTPS_PROXY name a proxy that leads there"
    if isinstance(error, requests.Timeout) or isinstance(cause, causes.TimeoutError) or "timed out" in str(error):
        return "the server does not answer in time"
    if isinstance(error, ValueError):
        return f"not a usable address, or not a usable proxy ({error})"
    if isinstance(error, requests.TooManyRedirects):
        return "the server answers with a circle of other addresses"
    return "the connection breaks"


def _status(reply: requests.Response) -> str:
    if reply.status_code == 407:
        return "the proxy asks for a password, which belongs into HTTP_PROXY and HTTPS_PROXY"
    return f"the server answers {reply.status_code} {reply.reason or ''}".rstrip()


def _error(source: Source, url: str, reason: str) -> DownloadError:
    remedy = f"name a mirror with DEEPMASK_MIRROR, or put {source.name} into the folder of DEEPMASK_DOWNLOADS"
    own = f", or your own data into {source.root}" if source.root else ""
    return DownloadError(f"{_shown(url)}: {reason}; {remedy}{own}")


def _range(reply: requests.Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole, as Content-Range states them."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", reply.headers.get("Content-Range", "").strip())
    return (_number(found[1]), _number(found[2])) if found else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shown(address: str | Path) -> str:
    """An address without the name and password that may be in it."""
    if isinstance(address, Path):
        return str(address)
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _bar(label: str, total: int, initial: int = 0) -> tqdm:
    """TQDM_DISABLE and TQDM_MININTERVAL of the environment are obeyed."""
    return tqdm(total=total, initial=initial, desc=label, unit="B", unit_scale=True, unit_divisor=1000)
