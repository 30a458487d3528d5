"""The history's one file: an SQLite database that many runs are added to, and that is refused, untouched, when damaged.

* **One file.**  The rollback journal (SQLite's default mode) is gone when a transaction ends, so that the file alone can
  be kept in a CI cache; the write-ahead log would leave two more beside it.
* **Two writers** both get in: a transaction begins with ``BEGIN IMMEDIATE``, which waits ``WAIT_S`` for the other to end.
* **Whole or refused.**  Header, application id, schema version, the tables' own definitions and SQLite's check of every
  page are looked at through a connection that can only read, before anything else is done.
* Nothing in a file is evaluated: tables hold numbers, text and JSON; the schema must be ours to the letter, so a file
  brings no trigger or view of its own.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from backprop_files import UserError

#: "BPBH", at byte 68 of the file; the schema's version is at byte 60.
APPLICATION_ID = 0x42504248
SCHEMA_VERSION = 1
WAIT_S = 60.0
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100

#: ``value``, ``low`` and ``high`` are in the series' unit; NULL where nothing could be estimated.  ``changes`` is a cache
#: of what follows from the rest (``analysis.history``): true while the machine has the same runs and the detector is the same.
SCHEMA = """
CREATE TABLE machines (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, facts TEXT NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, machine INTEGER NOT NULL REFERENCES machines,
    commit_id TEXT NOT NULL, commit_time TEXT NOT NULL, branch TEXT, dirty INTEGER NOT NULL, project TEXT,
    python TEXT NOT NULL, libraries TEXT NOT NULL, measured_at TEXT NOT NULL, settings TEXT NOT NULL
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, machine INTEGER NOT NULL REFERENCES machines, quantity TEXT NOT NULL, unit TEXT NOT NULL,
    impl TEXT NOT NULL, device TEXT NOT NULL, dtype TEXT NOT NULL, threads INTEGER NOT NULL, phase TEXT NOT NULL,
    axis TEXT NOT NULL, cell TEXT NOT NULL,
    UNIQUE (machine, quantity, unit, impl, device, dtype, threads, phase, cell)
);
CREATE TABLE points (
    series INTEGER NOT NULL REFERENCES series, run INTEGER NOT NULL REFERENCES runs,
    value REAL, low REAL, high REAL, time_s REAL, raw_s REAL, passes INTEGER NOT NULL, text TEXT,
    PRIMARY KEY (series, run)
) WITHOUT ROWID;
CREATE TABLE changes (
    series INTEGER PRIMARY KEY REFERENCES series, detector INTEGER NOT NULL, runs INTEGER NOT NULL,
    last_run INTEGER NOT NULL, document TEXT NOT NULL
);
"""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A checked connection that can only read.  Raises UserError for a file that is no whole history of ours."""
    if not path.exists():
        raise UserError(f"{path}: no such history; 'backprop-bench history add RUN --db {path}' begins one")
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{path}: is empty; 'backprop-bench history add RUN --db {path}' begins a history in it")
    _check_header(path)
    with _told(path), closing(_open(path, _read_mode(path))) as connection:
        _check(path, connection)
        yield connection


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A checked connection within one transaction, which is undone if anything is raised; makes the file if there is none."""
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name a file")
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        with reading(path):
            pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --db") from error
    with _told(path), closing(_open(path, "rwc" if new else "rw")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not connection.execute("PRAGMA user_version").fetchone()[0]:  # another writer may have been first
                _create(connection)
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _create(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode={mode}", uri=True, timeout=WAIT_S, isolation_level=None
    )
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _read_mode(path: Path) -> str:
    """Reading alone cannot undo what a killed writer left half done; its journal beside the file says that one did."""
    return "rw" if path.with_name(path.name + "-journal").exists() else "ro"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite says becomes one line."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(f"{path}: {error}; nothing was changed in it") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes what it cannot read
        raise UserError(f"{path}: is damaged ({error}); restore it from a copy, it was left as it is") from error


@contextmanager
def rows_trusted() -> Iterator[None]:
    """While rows are made into objects: what they cannot hold was not written by us."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise sqlite3.DatabaseError(f"a row holds what cannot be: {' '.join(str(error).split())}") from error


def _check_header(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise UserError(f"{path}: is no SQLite database; give the file that 'history add --db' writes")
    (application,) = struct.unpack(">I", header[68:72])
    (version,) = struct.unpack(">I", header[60:64])
    if application != APPLICATION_ID:
        raise UserError(f"{path}: is a database of another application, not a history of ours; choose another --db")
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: is a history of schema {version}, this version reads {SCHEMA_VERSION}")


def _check(path: Path, connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise UserError(f"{path}: is damaged ({' '.join(found.split())}); restore it from a copy, it was left as it is")
    with closing(sqlite3.connect(":memory:")) as ours:
        _create(ours)
        if _definitions(connection) != _definitions(ours):
            raise UserError(
                f"{path}: holds other tables than a history of schema {SCHEMA_VERSION}; it was left as it is"
            )


def _definitions(connection: sqlite3.Connection) -> set[tuple[str, str, str | None]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))
