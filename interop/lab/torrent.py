"""Payloads, v1 .torrent files for them, and byte-exact comparison."""

import hashlib
import os
import random
import urllib.parse
from pathlib import Path

from . import bencode

KIB = 1024
MIB = 1024 * KIB


def random_file(path, size, seed):
    """Writes `size` bytes that `seed` determines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    with open(path, "wb") as f:
        left = size
        while left > 0:
            n = min(left, MIB)
            f.write(rng.randbytes(n))
            left -= n
    return path


def many_files(folder, total, seed):
    """A tree with small, empty, nested and oddly named files, about `total` bytes."""
    rng = random.Random(seed)
    odd = ["ümlaut/naïve café.txt", "日本語/文書 一.bin", "emoji 🐟/shoal 🐠.dat", "a b/c & d/e'f.txt", "deep/1/2/3/4/5/6/leaf"]
    for n, name in enumerate(odd):
        random_file(folder / name, rng.randrange(1, 200 * KIB), seed + n)
    for n in range(6):
        random_file(folder / "empty" / f"nothing-{n}", 0, 0)
    written, n = 0, 0
    while written < total:
        size = rng.choice([0, 1, 100, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, rng.randrange(1, 300 * KIB)])
        random_file(folder / f"dir-{n % 17:02}" / f"file-{n:04}.bin", size, seed + 100 + n)
        written += size
        n += 1
    return folder


def sparse_file(path, size, islands, seed):
    """A file of `size` bytes, all holes but for 1 MiB of random bytes at each of `islands`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for at in islands:
            f.seek(at)
            f.write(rng.randbytes(min(MIB, size - at)))
    return path


class Torrent:
    """A payload on disk and the metainfo for it."""

    def __init__(self, payload, file, metainfo):
        self.payload = Path(payload)
        self.file = Path(file)
        self.metainfo = metainfo
        self.name = metainfo["info"]["name"]
        self.info_hash = hashlib.sha1(bencode.encode(metainfo["info"])).digest()

    @property
    def hex(self):
        return self.info_hash.hex()

    @property
    def size(self):
        info = self.metainfo["info"]
        return info["length"] if "length" in info else sum(f["length"] for f in info["files"])

    def magnet(self, trackers=()):
        query = [f"xt=urn:btih:{self.hex}", "dn=" + urllib.parse.quote(self.name)]
        query += ["tr=" + urllib.parse.quote(t, safe="") for t in trackers]
        return "magnet:?" + "&".join(query)

    def variant(self, file, **extra):
        """The same content with other outer keys (`announce`, `url-list`, ...)."""
        metainfo = {**self.metainfo, **{k.replace("_", "-"): v for k, v in extra.items()}}
        Path(file).write_bytes(bencode.encode(metainfo))
        return Torrent(self.payload, file, metainfo)


def make(payload, file, piece_len=256 * KIB, private=False, trackers=()):
    """Writes a v1 .torrent for a file or a folder."""
    payload = Path(payload)
    info = {"name": payload.name, "piece length": piece_len}
    if payload.is_dir():
        paths = sorted(p for p in payload.rglob("*") if p.is_file())
        info["files"] = [{"length": p.stat().st_size, "path": list(p.relative_to(payload).parts)} for p in paths]
    else:
        paths = [payload]
        info["length"] = payload.stat().st_size
    info["pieces"] = _hash_pieces(paths, piece_len)
    if private:
        info["private"] = 1
    metainfo = {"info": info, "created by": "shoal lab"}
    if trackers:
        metainfo["announce"] = trackers[0]
        metainfo["announce-list"] = [[t] for t in trackers]
    Path(file).write_bytes(bencode.encode(metainfo))
    return Torrent(payload, file, metainfo)


def _hash_pieces(paths, piece_len):
    zeros = bytes(piece_len)
    zero_hash = hashlib.sha1(zeros).digest()
    out, piece = [], bytearray()
    for path in paths:
        # Unbuffered: lseek below moves the descriptor itself.
        with open(path, "rb", buffering=0) as f:
            size, at = path.stat().st_size, 0
            while at < size:
                if not piece:
                    # Holes need no reading: a whole piece of zeros has a known hash.
                    try:
                        data_at = os.lseek(f.fileno(), at, os.SEEK_DATA)
                    except OSError:
                        data_at = size
                    skip = (data_at - at) // piece_len
                    out += [zero_hash] * skip
                    at += skip * piece_len
                    f.seek(at)
                    if at >= size:
                        break
                chunk = f.read(min(piece_len - len(piece), size - at))
                if not chunk:
                    raise OSError(f"{path} shrank while it was hashed")
                piece += chunk
                at += len(chunk)
                if len(piece) == piece_len:
                    out.append(hashlib.sha1(piece).digest())
                    piece.clear()
    if piece:
        out.append(hashlib.sha1(piece).digest())
    return b"".join(out)


def files_of(root):
    """Relative path → absolute path of all files below `root` (or of `root` itself)."""
    root = Path(root)
    if root.is_file():
        return {root.name: root}
    return {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if p.is_file()}


def difference(want, got, without_empty=False):
    """None if both trees hold the same files with the same bytes, else the first difference.

    With `without_empty`, files of zero bytes may be missing."""
    want_files, got_files = files_of(want), files_of(got)
    if Path(want).is_file() and Path(got).is_file():
        want_files, got_files = {"": Path(want)}, {"": Path(got)}
    for name, path in want_files.items():
        other = got_files.get(name)
        if other is None:
            if without_empty and path.stat().st_size == 0:
                continue
            return f"{name} is missing"
        if path.stat().st_size != other.stat().st_size:
            return f"{name} has {other.stat().st_size} bytes, not {path.stat().st_size}"
        at = _first_difference(path, other)
        if at is not None:
            return f"{name} differs in the MiB at {at}"
    extra = [n for n in got_files if n not in want_files]
    return f"{extra[0]} should not be there" if extra else None


def _first_difference(a, b):
    with open(a, "rb") as fa, open(b, "rb") as fb:
        at = 0
        while True:
            x, y = fa.read(MIB), fb.read(MIB)
            if x != y:
                return at
            if not x:
                return None
            at += len(x)
