"""Removes a person from the lake: from the tables, and from every file that a past version still needs.

Past versions are not given up for it: a file of theirs is written anew in its place, without the person's rows and
padded to its old size, which the table's log states. So `as_of` goes on to work, and from then on gives what would have
been there without this person. Neither the table's log nor its statistics ever named anybody (`abgate.storage.lake`);
rows are deleted by their sequence, so that this stays so.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from abgate.core.person import Links, Person, user_name_of
from abgate.storage.lake import LOG, Lake, Overtaken, last_sequence, overtaking, transaction
from abgate.storage.lake_rows import TABLES, TableName, schema_of

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyarrow import Schema
    from pyarrow import Table as Rows
    from pyarrow.compute import Expression
    from pyarrow.fs import PyFileSystem

ROUNDS = 10
"""So often the files are searched. The last search finds nothing; others may compact or merge between two of them."""
PREDICATE = 1_000
"""Sequences in one predicate."""

_SEARCHED: dict[TableName, list[str]] = {
    "events": ["user_id", "device", "subject", "body"],
    "exposures": ["user_id", "device", "subject"],
}
_DAY = re.compile(r"(?:^|/)day=([^/]+)/")


class Forgotten(Struct, frozen=True):
    """How many rows went from the tables, and how many files of past versions were written anew."""

    rows: int
    files: int


class NotForgotten(Exception):
    """Files still name the person, since others kept writing; run it again."""


def forget(
    lake: Lake, person: Person, *, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Forgotten:
    """Remove what the lake has of the person, and search every file until none names it.

    To be called when the database has nothing of it any more: an append that was read before is refused, and read
    anew. `on_progress` is told of files searched, and how many there are. Raises `NotForgotten`, and what deltalake
    raises when the lake is away.
    """
    rows, files = 0, 0
    for name in TABLES:
        _refuse_what_was_read(lake, name)
        known: set[int] = set()
        for _ in range(ROUNDS):
            found = dict(_search(lake, name, person, known, on_progress))
            if not found:
                break
            known.update(*found.values())
            rows += _delete(lake, name, found)
            files += _rewrite(lake, name, found)
        else:
            raise NotForgotten(f"Files of {lake.uri(name)} still name the person. Run the command again.")
    return Forgotten(rows, files)


def _refuse_what_was_read(lake: Lake, name: TableName) -> None:
    """Have appends fail that looked at the table before now: they may have read what is gone from the database."""
    while True:
        table = lake.open(name)
        try:
            with overtaking():
                table.create_write_transaction(
                    [], "append", table.schema(), commit_properties=transaction(LOG, last_sequence(table))
                )
        except Overtaken:
            continue
        return


def find_links(lake: Lake, tenant: str, user_id: str) -> Links:
    """Return the devices and the user names with which the tables name the user. Raises what `forget` raises."""
    from pyarrow.compute import field

    condition = (field("tenant") == tenant) & (field("user_id") == user_id)
    return _links(lake, {"events": condition, "exposures": condition})


def find_shared(lake: Lake, tenant: str, user_id: str, links: Links) -> Links:
    """Return those of the devices and names with which the tables name another user. Raises what `forget` raises."""
    from pyarrow.compute import field

    own = Person(tenant, own_devices=tuple(links.devices), own_names=tuple(links.names))
    others = (field("tenant") == tenant) & (field("user_id") != user_id)
    found = _links(lake, {name: others & _any(_own(name, own)) for name in TABLES})
    return Links(links.devices & found.devices, links.names & found.names)


def _links(lake: Lake, conditions: Mapping[TableName, "Expression"]) -> Links:
    devices: set[str | None] = set()
    names: set[str | None] = set()
    for name in TABLES:
        files, body = _present(lake.open(name)), (["body"] if name == "events" else [])
        store = _store(lake, name)
        for file in files:
            for batch in _batches(store, name, file, ["tenant", "user_id", "device", "subject", *body]):
                theirs = batch.filter(conditions[name])
                devices.update(theirs["device"].to_pylist())
                names.update(user_name_of(each) for column in body for each in theirs[column].to_pylist())
    return Links(frozenset(each for each in devices if each), frozenset(each for each in names if each))


def _search(
    lake: Lake, name: TableName, person: Person, known: Iterable[int], on_progress: Callable[[int, int], None]
) -> Iterator[tuple[str, list[int]]]:
    """Yield every file, of whatever version, with rows of the person, and their sequences.

    `known` sequences are theirs, also in a file from before it was known.
    """
    import pyarrow
    from pyarrow import compute, fs

    store = _store(lake, name)
    condition = _condition(name, person) | compute.is_in(
        compute.field("sequence"), pyarrow.array(sorted(known), pyarrow.int64())
    )
    files = [
        info.path
        for info in store.get_file_info(fs.FileSelector("", recursive=True))
        if info.path.endswith(".parquet") and "_delta_log" not in info.path
    ]
    for number, file in enumerate(files):
        on_progress(number, len(files))
        try:
            sequences = [
                sequence
                for batch in _batches(store, name, file, ["tenant", "sequence", *_SEARCHED[name]])
                for sequence in batch.filter(condition)["sequence"].to_pylist()
            ]
        except FileNotFoundError:
            continue  # vacuumed meanwhile
        if sequences:
            yield file, sequences


def _condition(name: TableName, person: Person) -> "Expression":
    from pyarrow.compute import field, match_substring_regex

    either = [field("user_id").is_null() & _any(_own(name, person))]
    for column, identifier in (("user_id", person.user_id), ("device", person.device)):
        if identifier is not None:
            either += [field(column) == identifier, field("subject") == identifier]
    if name == "events" and person.naming is not None:
        either.append(match_substring_regex(field("body"), person.naming))
    return (field("tenant") == person.tenant) & _any(either)


def _own(name: TableName, person: Person) -> list["Expression"]:
    """Return the conditions by which an anonymous row is theirs."""
    import pyarrow
    from pyarrow.compute import field, match_substring_regex

    devices = pyarrow.array(person.own_devices, pyarrow.string())
    either = [field("device").isin(devices), field("subject").isin(devices)]
    if name == "events" and person.sent_under_own_name is not None:
        either.append(match_substring_regex(field("body"), person.sent_under_own_name))
    return either


def _any(conditions: Sequence["Expression"]) -> "Expression":
    return functools.reduce(operator.or_, conditions)


def _delete(lake: Lake, name: TableName, found: dict[str, list[int]]) -> int:
    """Delete the rows from the table as it is now, day by day; return how many those were."""
    by_day: dict[str, set[int]] = {}
    for file, sequences in found.items():
        by_day.setdefault(_day_of(file), set()).update(sequences)
    deleted = 0
    for day, those in by_day.items():
        for some in _parts(sorted(those), PREDICATE):
            listed = ", ".join(map(str, some))
            predicate = f"day = '{day}' AND sequence BETWEEN {some[0]} AND {some[-1]} AND sequence IN ({listed})"
            deleted += _deleted(lake, name, predicate)
    return deleted


def _deleted(lake: Lake, name: TableName, predicate: str) -> int:
    while True:
        try:
            with overtaking():
                return int(lake.open(name).delete(predicate)["num_deleted_rows"])
        except Overtaken:
            continue  # by a merge or a compaction of the same files


def _rewrite(lake: Lake, name: TableName, found: dict[str, list[int]]) -> int:
    """Write those files anew that no present version has, without these rows; return how many those were."""
    present = set(_present(lake.open(name)))
    past = [file for file in found if file not in present]
    for file in past:
        _rewrite_file(lake, name, file, found[file])
    return len(past)


def _rewrite_file(lake: Lake, name: TableName, file: str, sequences: Sequence[int]) -> None:
    import pyarrow
    from deltalake._internal import DeltaFileSystemHandler
    from pyarrow import compute, parquet

    store, schema = _store(lake, name), _file_schema(name)
    forgotten = compute.is_in(compute.field("sequence"), pyarrow.array(sequences, pyarrow.int64()))
    written = pyarrow.BufferOutputStream()
    with parquet.ParquetWriter(written, schema, compression="zstd", compression_level=9, store_schema=False) as writer:
        for batch in _batches(store, name, file, schema.names):
            writer.write_table(batch.filter(~forgotten))
    content = _padded(written.getvalue().to_pybytes(), store.get_file_info(file).size)
    if content is None:
        # Not seen so far: fewer rows take more room. The versions that need the file cannot be read any more.
        store.delete_file(file)
        return
    # deltalake's own stream, since the one for pyarrow refuses what pyarrow writes. Closing it replaces the file.
    target = DeltaFileSystemHandler(lake.uri(name)).open_output_stream(file)
    target.write(content)
    target.close()  # type: ignore[attr-defined]  # the library's stub leaves it out


def _batches(store: "PyFileSystem", name: TableName, file: str, columns: Sequence[str]) -> Iterator["Rows"]:
    """Yield a file's rows in the table's own types: those that deltalake notes in it differ from commit to commit."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([_file_schema(name).field(column) for column in columns])
    with store.open_input_file(file) as source:
        for batch in parquet.ParquetFile(source).iter_batches(columns=columns):
            yield pyarrow.Table.from_batches([batch]).select(columns).cast(schema)


def _file_schema(name: TableName) -> "Schema":
    """Return the columns that are in the files; the day is in their names."""
    schema = schema_of(name)
    return schema.remove(schema.get_field_index("day"))


def _padded(content: bytes, size: int) -> bytes | None:
    """Return a Parquet file of exactly this size, with room before its footer, where no reader looks."""
    if len(content) > size:
        return None
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:footer] + bytes(size - len(content)) + content[footer:]


def _present(table: "DeltaTable") -> Iterable[str]:
    from urllib.parse import unquote

    root = table.table_uri.rstrip("/") + "/"
    local = unquote(root.removeprefix("file://"))
    for uri in table.file_uris():
        yield uri.removeprefix(root) if uri.startswith(root) else unquote(uri).removeprefix(local)


def _store(lake: Lake, name: TableName) -> "PyFileSystem":
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import PyFileSystem

    return PyFileSystem(DeltaStorageHandler(lake.uri(name)))


def _day_of(file: str) -> str:
    found = _DAY.search(file)
    if found is None or not re.fullmatch(r"\d{4}-\d\d-\d\d", found[1]):
        raise NotForgotten(f"{file} is no file that abgate wrote. Take it out of the lake, and run the command again.")
    return found[1]


def _parts(whole: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]
