from hypothesis import given
from hypothesis import strategies as st

from abgate.core.catalog import Catalog

KEYS = st.text(max_size=3)


@given(st.lists(st.dictionaries(KEYS, st.integers() | st.none(), max_size=20), max_size=8))
def test_it_holds_what_a_dictionary_would(steps: list[dict[str, int | None]]) -> None:
    catalog: Catalog[int] = Catalog()
    model: dict[str, int] = {}
    for changes in steps:
        before, held = catalog, dict(model)
        catalog = catalog.with_changes(changes)
        model |= {key: value for key, value in changes.items() if value is not None}
        for key, value in changes.items():
            if value is None:
                model.pop(key, None)
        assert sorted(catalog.values()) == sorted(model.values())
        assert all(catalog.find(key) == model.get(key) for key in changes)
        assert all(before.find(key) == value for key, value in held.items()), "the former catalog changed"


def test_a_change_copies_one_shard_only() -> None:
    many: Catalog[int] = Catalog[int]().with_changes({str(number): number for number in range(20_000)})
    changed = many.with_changes({"7": -7})
    differing = [old is not new for old, new in zip(many._shards, changed._shards, strict=True)]
    assert sum(differing) == 1
    assert many.with_changes({}) is many
