"""Certificates for a fleet of one's own: ``python -m bench.fleet.certificates DIR``.

One authority, and one certificate signed by it that scheduler, workers and client all show: whoever holds the folder
may join, and nobody else.  Dask's ``Security`` takes the three files as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from backprop_files import UserError

DAYS = 365


@dataclass(frozen=True)
class Certificates:
    """Files in PEM form: the authority, and a certificate with its key."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def at(cls, folder: Path) -> Certificates:
        """Those of a folder, there or not."""
        return cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")

    @property
    def complete(self) -> bool:
        """Whether all three files are there."""
        return all(path.is_file() for path in (self.ca, self.cert, self.key))

    @property
    def options(self) -> list[str]:
        """What ``backprop-bench run`` is told."""
        return ["--tls-ca", str(self.ca), "--tls-cert", str(self.cert), "--tls-key", str(self.key)]

    def dask_options(self) -> list[str]:
        """What ``dask scheduler`` and ``dask worker`` are told."""
        return ["--tls-ca-file", str(self.ca), "--tls-cert", str(self.cert), "--tls-key", str(self.key)]


def make(folder: Path) -> Certificates:
    """Make them in ``folder``, which nobody else may read; those that are there are kept.

    Raises UserError where there is no ``openssl``, it fails, or the folder cannot be written.
    """
    made = Certificates.at(folder)
    if made.complete:
        return made
    if shutil.which("openssl") is None:
        raise UserError("no openssl on the path: install it, or bring ca.pem, cert.pem and key.pem of your own")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    authority_key, request = folder / "ca.key", folder / "request.pem"
    named = ["-subj", "/CN=backprop-bench fleet"]
    fresh_key = ["-newkey", "rsa:3072", "-nodes"]
    try:
        _openssl("req", "-x509", *fresh_key, "-days", str(DAYS), *named, "-keyout", authority_key, "-out", made.ca)
        _openssl("req", *fresh_key, "-subj", "/CN=backprop-bench", "-keyout", made.key, "-out", request)
        signed: list[str | Path] = ["-CA", made.ca, "-CAkey", authority_key, "-set_serial", "1", "-days", str(DAYS)]
        _openssl("x509", "-req", "-in", request, *signed, "-out", made.cert)
    finally:  # who cannot sign any more cannot let anybody else in
        authority_key.unlink(missing_ok=True)
        request.unlink(missing_ok=True)
    return made


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, umask=0o077)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise UserError(f"openssl {arguments[0]} failed: {last}")


def main(arguments: list[str]) -> int:
    """Make certificates and say how they are used."""
    if len(arguments) != 1:
        print("usage: python -m bench.fleet.certificates DIR", file=sys.stderr)
        return 2
    try:
        made = make(Path(arguments[0]).resolve())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    told = " ".join(made.dask_options())
    print(f"dask scheduler --protocol tls {told}")
    print(f"dask worker tls://HOST:PORT --nthreads 1 --resources measure=1 --protocol tls {told}")
    print(f"backprop-bench run --scheduler tls://HOST:PORT {' '.join(made.options)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
