"""Downloads and unpacks for `cargo xtask`, with nothing but Python's standard library (3.8 or newer).

    fetch.py download URL FILE
    fetch.py unpack ARCHIVE FOLDER SHA256 STRIP [+PATTERN | -PATTERN]...
    fetch.py torch-version

Progress goes to stderr. Exits with 0; with 3 if the host could not be reached at all; with 1 if anything else went
wrong. In both of these cases stdout holds one line that says why.
"""

import fnmatch
import hashlib
import http.client
import importlib.metadata
import os
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib

CHUNK = 1 << 20
UNREACHABLE = 3
# The wait for a host is short, because there is another way to get libtorch. The wait within a download is long.
REACH_SECONDS = 5
STALL_SECONDS = 30
RESUMES = 8


class Failure(Exception):
    """One line for a person, and the exit status that goes with it."""

    def __init__(self, why, status=1):
        super().__init__(why)
        self.status = status


class Bar:
    """A progress bar on a terminal; elsewhere (a log) a line now and then."""

    def __init__(self, label, total):
        self.label, self.total, self.done = label, max(total, 1), 0
        self.terminal = sys.stderr.isatty()
        self.start = self.drawn = time.monotonic()
        if not self.terminal:
            print(f"       {label} ({total / 1e6:.0f} MB)", file=sys.stderr, flush=True)

    def add(self, count):
        self.done += count
        now = time.monotonic()
        if now - self.drawn > (0.1 if self.terminal else 10) or (self.terminal and self.done >= self.total):
            self.drawn = now
            self.draw(now)

    def draw(self, now):
        if not self.terminal:
            print(f"       {self.label}: {100 * self.done // self.total} %", file=sys.stderr, flush=True)
            return
        share = min(self.done / self.total, 1.0)
        filled = int(share * 30)
        speed = self.done / max(now - self.start, 0.1)
        left = (self.total - self.done) / max(speed, 1.0)
        print(
            f"\r       {self.label} [{'=' * filled}{' ' * (30 - filled)}] {self.done / 1e6:.0f}/{self.total / 1e6:.0f} MB, "
            f"{speed / 1e6:.0f} MB/s, {left:.0f} s left \x1b[K",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def close(self):
        if self.terminal:
            print(file=sys.stderr)


def download(url, path):
    """Fetches `url` to `path`. What has arrived is kept in `path`.part, from which a later call continues. The file is
    complete when it is as long as the server said."""
    part = path + ".part"
    bar = None
    for attempt in range(RESUMES + 1):
        have = os.path.getsize(part) if os.path.exists(part) else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=REACH_SECONDS) as answer:
                if have and answer.status != 206:
                    have = 0  # The server starts over, and so must the file.
                length = answer.headers.get("Content-Length")
                if length is None:
                    raise Failure("the server does not say how long the file is")
                total = have + int(length)
                bar = bar or Bar("download", total)
                bar.done = have
                stretch_timeout(answer)
                with open(part, "ab" if have else "wb") as file:
                    while chunk := answer.read(CHUNK):
                        file.write(chunk)
                        bar.add(len(chunk))
                    file.flush()
                    os.fsync(file.fileno())
            if os.path.getsize(part) == total:
                bar.close()
                os.replace(part, path)
                return
            why = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # The part is longer than the file: it is of something else.
                os.remove(part)
                why = "the file changed"
            else:
                raise Failure(f"the server answers {error.code} {error.reason}")
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            if bar is None:
                raise Failure(f"{getattr(error, 'reason', error)}", UNREACHABLE)
            why = error
        time.sleep(min(0.25 * 2**attempt, 20))
    raise Failure(f"it broke off {RESUMES + 1} times, at last because: {why}")


def stretch_timeout(answer):
    """Once the host has answered, a slow line is no reason to give up."""
    sock = getattr(getattr(answer.fp, "raw", None), "_sock", None)
    if sock is not None:  # There is no public way to it. Without it, a stall only ends sooner.
        sock.settimeout(STALL_SECONDS)


def unpack(archive, folder, sha256, strip, rules):
    """Unpacks the members that a `+` pattern names and no `-` pattern does. The archive's checksum is compared
    first (`any`: there is none to compare), and each member's CRC-32 while it is read."""
    name = os.path.basename(archive)
    if sha256 != "any":
        digest, bar = hashlib.sha256(), Bar(f"check {name[:24]}", os.path.getsize(archive))
        with open(archive, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                bar.add(len(chunk))
        bar.close()
        if digest.hexdigest() != sha256:
            os.remove(archive)
            raise Failure(f"{name} has SHA-256 {digest.hexdigest()}, not {sha256}; it was thrown away")
    keep = [rule[1:] for rule in rules if rule[0] == "+"]
    drop = [rule[1:] for rule in rules if rule[0] == "-"]

    def wanted(member):
        matches = lambda pattern: fnmatch.fnmatchcase(member, pattern)
        return not member.endswith("/") and any(map(matches, keep)) and not any(map(matches, drop))

    try:
        with zipfile.ZipFile(archive) as members:
            chosen = [member for member in members.infolist() if wanted(member.filename)]
            if not chosen:
                raise Failure(f"{name} holds none of the files that are needed")
            bar = Bar(f"unpack {name[:23]}", sum(member.file_size for member in chosen))
            for member in chosen:
                inside = member.filename[len(strip) :]
                path = os.path.normpath(os.path.join(folder, inside))
                if not member.filename.startswith(strip) or not path.startswith(os.path.join(folder, "")):
                    raise Failure(f"{name} holds {member.filename}, which does not belong there")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with members.open(member) as source, open(path, "wb") as target:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                        bar.add(len(chunk))
            bar.close()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        os.remove(archive)
        raise Failure(f"{name} is damaged ({error}); it was thrown away")
    os.sync()


def torch_version():
    """The PyTorch that this Python would import, without importing it (that takes seconds)."""
    try:
        print(importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        raise Failure("this Python has no PyTorch")


def main(verb, *words):
    if verb == "download":
        download(*words)
    elif verb == "unpack":
        unpack(*words[:4], words[4:])
    elif verb == "torch-version":
        torch_version()
    else:
        raise Failure(__doc__)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (Failure, OSError) as error:
        print(error)
        sys.exit(getattr(error, "status", 1))
    except KeyboardInterrupt:
        sys.exit(130)
