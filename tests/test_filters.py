"""Rules over item attributes: every kind worked out by hand, every refusal, and the same lists everywhere."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import ConfigError, DataError, ItemTable, Queries, Rules, Sessions, Vocabulary
from nextclick.batch import recommend_file

# Seven products: g has no values at all, h is in the model and not in the table, z only in the table.
ITEMS = {
    "product_id": ["a", "b", "c", "d", "e", "f", "g", "z"],
    "category": [
        "Shoes/Boots/Winter",
        "Shoes/Boots",
        "Shoes / Sandals",
        "Bags/Rucksacks",
        "Bags",
        "Shoes",
        None,
        "Bags",
    ],
    "sub": ["Boots", "Boots", "Sandals", "Rucksacks", None, None, None, None],
    "top": ["Shoes", "Shoes", "Shoes", "Bags", "Bags", "Shoes", "", "Bags"],
    "price": [100.0, 50.0, 20.0, 23.0, 200.0, 49.0, None, 1.0],
    "size": [40, 41, 40, 1, 1, 43, None, 1],
    "in_stock": [True, False, True, True, True, False, None, True],
    "brand": ["acme", "bolt", "acme", "bolt", "core", "", None, "zeta"],
}
MODEL = "abcdefgh"
VOCABULARY = Vocabulary(list(MODEL))


def table(**columns: Sequence[Any]) -> ItemTable:
    return ItemTable.of({**ITEMS, **columns}, where="items.parquet")


def rules(*given: Mapping[str, Any]) -> Rules:
    return Rules.of({"rule": list(given)}, where="rules.toml")


def left(rule: Mapping[str, Any], session: str = "", items: ItemTable | None = None) -> str:
    """The items that a rule leaves after a session, as one word."""
    filter = rules(rule).bind(items or table(), VOCABULARY)
    allowed = filter.allowed(Queries.of([VOCABULARY.codes_of(session)]))
    assert allowed.shape == (1, len(MODEL))
    assert allowed.dtype == np.bool_
    return "".join(item for item, meets in zip(MODEL, allowed[0], strict=True) if meets)


# -- every kind of rule, by hand


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"attribute": "in_stock", "equals": True}, "acde"),
        ({"attribute": "in_stock", "equals": False}, "bf"),
        ({"attribute": "in_stock", "equals": True, "missing": "keep"}, "acdegh"),
        ({"attribute": "brand", "equals": "bolt"}, "bd"),
        ({"attribute": "size", "equals": 40}, "ac"),
        ({"attribute": "size", "equals": 40.0}, "ac"),
        ({"attribute": "brand", "in": ["acme", "core"]}, "ace"),
        ({"attribute": "size", "in": [1, 43]}, "def"),
        ({"attribute": "brand", "not_in": ["acme"]}, "bdefgh"),
        ({"attribute": "brand", "not_in": ["acme"], "missing": "drop"}, "bde"),
        ({"attribute": "size", "not_in": [1]}, "abcfgh"),
        ({"attribute": "price", "between": [23, 100]}, "abdf"),
        ({"attribute": "price", "between": [50, float("inf")]}, "abe"),
        ({"attribute": "price", "between": [23, 100], "missing": "keep"}, "abdfgh"),
        ({"attribute": "size", "between": [1, 40]}, "acde"),
        ({"attribute": "size", "between": [1, 40], "not_in": [1]}, "ac"),
        ({"block": ["a", "h", "nobody"]}, "bcdefg"),
        ({"block": []}, "abcdefgh"),
        ({"allow": ["a", "h", "nobody"]}, "ah"),
        ({"allow": ["a", "h"], "block": ["h"]}, "a"),
        ({"attribute": "brand", "not_in": ["acme"], "block": ["b"]}, "defgh"),
        # A path: the category or anything below it.
        ({"attribute": "category", "equals": "Shoes"}, "f"),
        ({"attribute": "category", "equals": "Shoes", "separator": "/"}, "abcf"),
        ({"attribute": "category", "in": ["Shoes/Boots", "Bags/Rucksacks"], "separator": "/"}, "abd"),
        ({"attribute": "category", "in": ["Shoes/Sandals"], "separator": "/"}, "c"),
        ({"attribute": "category", "not_in": ["Shoes/Boots", "Bags"], "separator": "/"}, "cfgh"),
        ({"attribute": ["top", "sub"], "in": ["Shoes/Boots", "Bags"]}, "abde"),
        ({"attribute": ["top", "sub"], "equals": "Shoes>Boots", "separator": ">"}, "ab"),
    ],
)
def test_rules_that_do_not_look_at_the_anchor(rule: dict[str, Any], expected: str) -> None:
    for session in ("", "a", "ge"):
        assert left(rule, session) == expected


@pytest.mark.parametrize(
    ("rule", "session", "expected"),
    [
        ({"attribute": "brand", "same": "anchor"}, "a", "ac"),
        ({"attribute": "brand", "same": "anchor"}, "ab", "bd"),  # the last click counts
        ({"attribute": "brand", "same": "anchor", "missing": "keep"}, "a", "acfgh"),
        ({"attribute": "brand", "same": "anchor"}, "f", "abcdefgh"),  # an anchor without a value
        ({"attribute": "brand", "same": "anchor"}, "h", "abcdefgh"),  # an anchor the table lacks
        ({"attribute": "brand", "same": "anchor"}, "", "abcdefgh"),  # no anchor
        ({"attribute": "size", "same": "anchor"}, "d", "de"),
        ({"attribute": "in_stock", "same": "anchor"}, "b", "bf"),
        ({"attribute": "category", "same": "anchor"}, "b", "b"),
        ({"attribute": "category", "same": "anchor", "depth": 1}, "b", "abcf"),
        ({"attribute": "category", "same": "anchor", "depth": 2}, "b", "ab"),
        ({"attribute": "category", "same": "anchor", "depth": 3}, "b", "b"),
        ({"attribute": "category", "same": "anchor", "depth": 2}, "f", "f"),  # no second level: as short
        ({"attribute": "category", "same": "anchor", "depth": 1}, "e", "de"),
        ({"attribute": ["top", "sub"], "same": "anchor"}, "a", "ab"),
        ({"attribute": ["top", "sub"], "same": "anchor"}, "e", "e"),
        ({"attribute": ["top", "sub"], "same": "anchor", "depth": 1}, "e", "de"),
        ({"attribute": ["top", "sub"], "same": "anchor", "depth": 1}, "g", "abcdefgh"),
        ({"attribute": "price", "within": [0.5, 2]}, "a", "abe"),  # 50 to 200, both allowed
        ({"attribute": "price", "within": [1, 1]}, "a", "a"),
        ({"attribute": "price", "within": [0, 0.49]}, "a", "cdf"),
        ({"attribute": "price", "within": [1, 1.15]}, "c", "cd"),  # 20 * 1.15 is a little less than 23
        ({"attribute": "price", "within": [0.5, 2]}, "g", "abcdefgh"),
        ({"attribute": "price", "within": [0.5, 2]}, "", "abcdefgh"),
        ({"attribute": "price", "within": [0.5, 2], "missing": "keep"}, "a", "abegh"),
        ({"attribute": "price", "within": [0.5, 2], "between": [0, 150]}, "a", "ab"),
        ({"attribute": "size", "within": [0.9, 1.1]}, "a", "abcf"),
    ],
)
def test_rules_that_look_at_the_anchor(rule: dict[str, Any], session: str, expected: str) -> None:
    assert left(rule, session) == expected


def test_a_negative_value_has_its_multiples_the_other_way_round() -> None:
    items = ItemTable.of({"id": list("abc"), "degrees": [-10.0, -15.0, -30.0]})
    filter = rules({"attribute": "degrees", "within": [0.5, 2]}).bind(items, Vocabulary(list("abc")))
    assert filter.allowed(Queries.of([[0]])).tolist() == [[True, True, False]]


def test_all_rules_must_be_met() -> None:
    both = [{"attribute": "brand", "not_in": ["acme"]}, {"attribute": "size", "same": "anchor"}]
    filter = rules(*both).bind(table(), VOCABULARY)
    queries = Queries.of([VOCABULARY.codes_of(session) for session in ("e", "", "a")])
    found = ["".join(np.array(list(MODEL))[row]) for row in filter.allowed(queries)]
    assert found == ["de", "bdefgh", ""]


def test_large_whole_numbers_are_compared_exactly() -> None:
    items = ItemTable.of({"id": [1, 2, 3], "maker": [2**60, 2**60 + 1, None]})
    vocabulary = Vocabulary(np.array([1, 2, 3]))
    for rule in ({"equals": 2**60}, {"in": [2**60, 5]}, {"same": "anchor"}):
        filter = rules({"attribute": "maker", **rule}).bind(items, vocabulary)
        assert filter.allowed(Queries.of([[0]])).tolist() == [[True, False, False]]
    filter = rules({"attribute": "maker", "in": [10**30]}).bind(items, vocabulary)
    assert not filter.allowed(Queries.of([[0]])).any()


def test_single_precision_is_compared_as_it_is_stored() -> None:
    items = ItemTable.of({"id": [1, 2, 3], "price": np.array([9.99, 10.01, 0.1], np.float32)})
    vocabulary = Vocabulary(np.array([1, 2, 3]))
    for rule in ({"equals": 9.99}, {"in": [9.99, 5]}, {"between": [9.99, 9.99]}):
        filter = rules({"attribute": "price", **rule}).bind(items, vocabulary)
        assert filter.allowed(Queries.of([[]])).tolist() == [[True, False, False]]


# -- against a slow loop


values = st.one_of(st.none(), st.sampled_from(["x", "y", "x/y", "x/z", "y/x/x"]))
prices = st.one_of(st.none(), st.integers(0, 6).map(float))


@given(data=st.data())
@settings(deadline=None, max_examples=80)
def test_a_filter_is_the_rules_asked_one_item_at_a_time(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    category = data.draw(st.lists(values, min_size=n, max_size=n))
    price = data.draw(st.lists(prices, min_size=n, max_size=n))
    depth, low, keep = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3)), data.draw(st.booleans())
    missing = {"missing": "keep" if keep else "drop"}
    filter = rules(
        {"attribute": "category", "same": "anchor", "depth": depth, **missing},
        {"attribute": "price", "within": [low / 2, 2], **missing},
    ).bind(
        ItemTable.of({"id": list(range(n)), "category": category, "price": price}), Vocabulary(np.arange(n))
    )
    prefixes = data.draw(st.lists(st.lists(st.integers(0, n - 1), max_size=3), min_size=1, max_size=4))
    targets = np.array([data.draw(st.integers(-1, n - 1)) for _ in prefixes], np.int32)
    found = filter.allowed(Queries.of(prefixes))

    def meets(item: int, anchor: int | None) -> bool:
        if anchor is None:
            return True
        mine, its = category[anchor], category[item]
        if mine is not None and its is None and not keep:
            return False
        if mine is not None and its is not None and mine.split("/")[:depth] != its.split("/")[:depth]:
            return False
        mine, its = price[anchor], price[item]
        if mine is None:
            return True
        return keep if its is None else low / 2 * mine <= its <= 2 * mine

    for row, prefix in zip(found.tolist(), prefixes, strict=True):
        assert row == [meets(item, prefix[-1] if prefix else None) for item in range(n)]
    effect = filter.effect(Queries.of(prefixes), targets)
    assert effect.left.tolist() == found.sum(axis=1).tolist()
    assert effect.forbidden.tolist() == [
        target >= 0 and not row[target] for row, target in zip(found.tolist(), targets, strict=True)
    ]


def test_effects_are_counted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    filter = rules({"attribute": "brand", "same": "anchor"}).bind(table(), VOCABULARY)
    queries = Queries.of([[n % 8] for n in range(30)])
    targets = (np.arange(30) % 5).astype(np.int32)
    whole = filter.effect(queries, targets)
    monkeypatch.setattr("nextclick.filters.filter._BLOCK", 16)
    parts = filter.effect(queries, targets)
    assert parts.left.tolist() == whole.left.tolist()
    assert parts.forbidden.tolist() == whole.forbidden.tolist()
    assert len(set(whole.left.tolist())) > 1


# -- the table


def write_csv(path: Path, rows: Sequence[str]) -> Path:
    text = "\n".join(rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode("utf-8")))
    else:
        path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("name", ["items.csv", "items.csv.gz", "it[e]m*s?.csv", "items's.tsv"])
def test_csv_is_read_as_the_rules_need_it(tmp_path: Path, name: str) -> None:
    rows = ["Item ID,category,price,in_stock,code", 'a,"x,y",5,true,007', "b,x;y,7.5,0,7", "c,,,Yes,"]
    if name.endswith(".tsv"):
        rows = [row.replace('"x,y"', "x+y").replace(",", "\t").replace("x+y", "x,y") for row in rows]
    path = write_csv(tmp_path / name, rows)
    vocabulary = Vocabulary(list("abc"))
    for rule, expected in (
        ({"attribute": "category", "equals": "x,y"}, [True, False, False]),
        ({"attribute": "price", "between": [5, 7]}, [True, False, False]),
        ({"attribute": "price", "in": [7.5]}, [False, True, False]),
        ({"attribute": "in_stock", "equals": True}, [True, False, True]),
        ({"attribute": "code", "equals": "007"}, [True, False, False]),
        ({"attribute": "code", "equals": 7}, [True, True, False]),
    ):
        assert rules(rule).bind(path, vocabulary).allowed(Queries.of([[]])).tolist() == [expected]


def test_parquet_of_any_usable_type(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT * FROM (VALUES (1::UTINYINT, 5.25::DECIMAL(9,2), 1.5::FLOAT, 'x'::ENUM('x','y'), "
            "true, 7::HUGEINT, DATE '2025-01-01', [1]), (2, 6, NULL, 'y', NULL, 8, NULL, NULL)) "
            "AS t(sku, dec, flt, enum, yes, huge, day, list)) "
            f"TO '{path}' (FORMAT parquet)"
        )
    vocabulary = Vocabulary(np.array([2, 1]))
    for rule in (
        {"attribute": "dec", "equals": 5.25},
        {"attribute": "flt", "between": [1, 2]},
        {"attribute": "enum", "in": ["x"]},
        {"attribute": "yes", "equals": True},
        {"attribute": "huge", "equals": 7},
    ):
        filter = rules(rule).bind(path, vocabulary)
        assert filter.allowed(Queries.of([[]])).tolist() == [[False, True]], rule
    for column in ("day", "list"):
        with pytest.raises(DataError, match=f"column '{column}' is of type"):
            rules({"attribute": column, "equals": 1}).bind(path, vocabulary)
    assert set(ItemTable.read(path).columns) == {"dec", "flt", "enum", "yes", "huge", "day", "list"}
    assert set(ItemTable.read(path, columns={"dec"}).columns) == {"dec"}


def test_ids_may_be_numbers_in_one_place_and_text_in_the_other() -> None:
    rule = {"attribute": "brand", "equals": "x"}
    of_text = ItemTable.of({"id": ["10", "20"], "brand": ["x", "y"]})
    of_numbers = ItemTable.of({"id": [10, 20], "brand": ["x", "y"]})
    for items, vocabulary in (
        (of_text, Vocabulary(np.array([20, 10]))),
        (of_numbers, Vocabulary(["20", "10"])),
    ):
        assert rules(rule).bind(items, vocabulary).allowed(Queries.of([[]])).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["item_id", "price"], "item_id"),
        (["price", "ID"], "ID"),
        (["id", "ProductId"], "ProductId"),
        (["SKU", "id"], "SKU"),
    ],
)
def test_the_id_column_is_recognised(columns: list[str], found: str) -> None:
    assert ItemTable.of({name: ["a", "b"] for name in columns}).id_column == found


def test_what_was_ignored_is_said() -> None:
    filter = rules(
        {"name": "makers", "attribute": "brand", "in": ["acme", "Bolt", "cor"]},
        {"name": "recalled", "block": ["a", "q", "r"]},
    ).bind(table(), VOCABULARY)
    assert filter.notes == (
        "items.parquet: 1 item unknown to the model, ignored",
        "items.parquet: 1 item of the model not there, without values",
        "rule 'makers': no item has the value 'Bolt' and 1 more; did you mean 'bolt'?",
        "rule 'recalled': 2 items of its list unknown to the model, ignored",
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": [float("nan")] * 8}, "items.parquet, row 1 (item 'a'): price is nan; leave it empty"),
        ({"price": [1.0] * 7 + [float("inf")]}, "row 8 (item 'z'): price is inf"),
        ({"price": ["5"] * 7 + ["5,50"]}, "row 8 (item 'z'): price '5,50' is no number"),
        ({"price": [True] * 8}, "column 'price' holds booleans, not numbers"),
        ({"product_id": list("abcdefga")}, "item 'a' stands in 2 rows; keep one row per item"),
        ({"product_id": [*"abc", None, *"efgz"]}, "row 4: no item id in column 'product_id'"),
        ({"product_id": [float(n) for n in range(8)]}, "in column 'product_id' are of type float64"),
        ({"product_id": [True] * 8}, "are of type boolean; store them as integers or text"),
        ({"product_id": [f"P{n}" for n in range(8)]}, "none of the model's items stands there, such as 'a'"),
        ({"price": [1, "x", None, 2, 3, 4, 5, 6]}, "column 'price' holds int and str; give text, or numbers"),
        ({"price": [1.0]}, "columns of different length"),
        ({"item_id": list("abcdefgz")}, "which column holds the item ids? 'product_id' and 'item_id' could"),
    ],
)
def test_tables_that_cannot_be_used(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as refused:
        rules({"attribute": "price", "between": [5, 10]}).bind(table(**columns), VOCABULARY)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"attribute": "catgory", "same": "anchor"}, "has no column 'catgory'; did you mean 'category'?"),
        ({"attribute": "brand", "between": [1, 2]}, "row 1 (item 'a'): brand 'acme' is no number"),
        ({"attribute": "brand", "equals": 1}, "brand 'acme' is no number"),
        ({"attribute": "brand", "equals": True}, "brand 'acme' is neither true nor false"),
        (
            {"attribute": "size", "equals": "40"},
            "'40' is text, and column 'size' of items.parquet holds numbers",
        ),
        ({"attribute": "in_stock", "equals": "yes"}, "holds booleans; write the value without quotes"),
        ({"attribute": "size", "equals": True}, "size 40 is neither true nor false"),
        ({"attribute": "size", "same": "anchor", "depth": 1}, "column 'size' holds numbers, not text"),
        ({"attribute": "in_stock", "within": [1, 2]}, "holds booleans, not numbers"),
    ],
)
def test_rules_that_do_not_fit_the_table(rule: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError)) as refused:
        rules({"block": ["a"]}, {"name": "second", **rule}).bind(table(), VOCABULARY)
    assert str(refused.value).startswith("rules.toml: rule 2 ('second'): ")
    assert message in str(refused.value)


def test_rules_on_attributes_need_a_table() -> None:
    with pytest.raises(
        ConfigError, match=r"rules.toml: rules on brand, price need the table of items.*--items"
    ):
        rules({"attribute": "price", "between": [1, 2]}, {"attribute": "brand", "in": ["x"]}).bind(
            None, VOCABULARY
        )
    assert rules({"block": ["a"]}).bind(None, VOCABULARY).allowed(Queries.of([[]])).sum() == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PAR1 and then nothing", "cannot be read, it may be damaged"),
        (b"id,price\na,1,2\n", "cannot be read, it may be damaged"),
        (b"id,pr\xe9ce\na,1\n", "not UTF-8 text"),
        (b"id,price\n" + b"a,1\n" * 20_000 + b"b,\xe9\n", "cannot be read"),
        (b"id,price,Price\na,1,2\n", "names the column 'price' twice"),
        (b"id,,b\na,1,2\n", "a column without a name"),
        (
            b"name,price\na,1\n",
            "which column holds the item ids? none is recognised; name it with --items-id",
        ),
        (b"id,price\n", "holds no item"),
        (gzip.compress(b"id,price\na,1\n" * 1000, mtime=0)[:-20], "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(DataError) as refused:
        ItemTable.read(tmp_path / "items.csv")
    assert str(refused.value).startswith(str(tmp_path / "items.csv"))
    assert message in str(refused.value)


def test_a_table_that_is_not_there_and_a_column_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; give the table of items"):
        ItemTable.read(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="no column 'produkt_id' of item ids; did you mean 'product_id'"):
        ItemTable.of(ITEMS, id_column="produkt_id")
    assert ItemTable.of(ITEMS, id_column="product_id").id_column == "product_id"


# -- the file of rules


TOML = """
[[rule]]
name = "same department"
attribute = "category"
same = "anchor"
depth = 1

[[rule]]
attribute = "in_stock"
equals = true

[[rule]]
attribute = "price"
between = [5, inf]

[[rule]]
attribute = "brand"
not_in = ["acme"]
block = ["P0001"]
block_file = "blocked.txt"
"""


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("\ufeffP0002\n\n P0003 \r\n", "utf-8")
    (tmp_path / "rules.toml").write_text(TOML, "utf-8")
    of_toml = Rules.read(tmp_path / "rules.toml")
    content = {
        "rule": [
            {"name": "same department", "attribute": "category", "same": "anchor", "depth": 1},
            {"attribute": "in_stock", "equals": True},
            {"attribute": "price", "between": [5, float("inf")]},
            {"attribute": "brand", "not_in": ["acme"], "block": ["P0001", "P0002", "P0003"]},
        ]
    }
    (tmp_path / "rules.json").write_text(json.dumps(content), "utf-8")
    assert of_toml == Rules.read(tmp_path / "rules.json") == Rules.of(content)
    assert [str(rule) for rule in of_toml.rules] == [
        "same department (same category as the anchor (first level))",
        "in_stock is true",
        "price from 5 to inf",
        "brand is not acme, or no brand, not on a list of 3",
    ]
    assert of_toml.attributes == {"category", "in_stock", "price", "brand"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"atribute": "x", "equals": 1}, "a rule has no 'atribute'; did you mean 'attribute'?"),
        ({"attribute": "x"}, "no condition; give one of same, equals"),
        ({"attribute": "x", "block": ["a"]}, "attribute without a condition on it"),
        ({}, "no condition"),
        ({"equals": 1}, 'equals: of which attribute? Write for example attribute = "category"'),
        ({"block": ["a"], "missing": "keep"}, "missing: of which attribute?"),
        ({"attribute": "", "equals": 1}, "attribute='': expected a column"),
        ({"attribute": 3, "equals": 1}, "attribute=3: expected a column"),
        ({"attribute": ["a", "a"], "same": "anchor"}, "names a column twice"),
        ({"attribute": "x", "same": "first"}, "same='first': expected \"anchor\""),
        ({"attribute": "x", "same": True}, 'same=True: expected "anchor"'),
        (
            {"attribute": "x", "equals": ["a"]},
            "equals=['a']: expected one value; for several write in = ['a']",
        ),
        ({"attribute": "x", "equals": float("nan")}, "equals: nan is neither text, a finite number"),
        ({"attribute": "x", "equals": ""}, 'equals: "" is no value'),
        ({"attribute": "x", "equals": 1, "in": [2]}, "equals and in: give one of them"),
        ({"attribute": "x", "in": "a"}, "in='a': expected a list of values; write in = ['a']"),
        ({"attribute": "x", "not_in": []}, "not_in: the list is empty"),
        ({"attribute": "x", "in": ["a", 1]}, "mixes number and text"),
        ({"attribute": "x", "in": [1, True]}, "mixes boolean and number"),
        ({"attribute": "x", "in": [[1]]}, "in: [1] is neither text"),
        ({"attribute": "x", "between": 5}, "between=5: expected two numbers, for example between = [5, 100]"),
        ({"attribute": "x", "between": [5]}, "expected two numbers"),
        ({"attribute": "x", "between": ["a", "b"]}, "expected two numbers"),
        ({"attribute": "x", "between": [False, True]}, "expected two numbers"),
        ({"attribute": "x", "between": [0, 10**400]}, "between: a number of more than 300 digits"),
        ({"attribute": "x", "between": [6, 5]}, "between=[6, 5]: expected the lower number first"),
        ({"attribute": "x", "between": [float("nan"), 5]}, "expected the lower number first"),
        ({"attribute": "x", "within": [2, 0.5]}, "within=[2, 0.5]: expected the lower number first"),
        ({"attribute": "x", "within": [-1, 2]}, "expected finite multiples of at least 0"),
        ({"attribute": "x", "within": [1, float("inf")]}, "expected finite multiples"),
        ({"attribute": "x", "same": "anchor", "depth": 0}, "depth=0: expected a whole number of at least 1"),
        ({"attribute": "x", "same": "anchor", "depth": True}, "depth=True: expected a whole number"),
        ({"attribute": "x", "equals": "a", "depth": 1}, 'depth: only with same = "anchor"'),
        ({"attribute": ["a", "b"], "same": "anchor", "depth": 3}, "depth=3: attribute names 2 levels only"),
        ({"attribute": "x", "same": "anchor", "separator": ""}, "separator='': expected text"),
        ({"attribute": ["a", "b"], "between": [1, 2]}, "between: needs a number"),
        ({"attribute": "x", "separator": "/", "within": [1, 2]}, "within: needs a number"),
        ({"attribute": "x", "separator": "/", "in": [5]}, "in: 5 is no path of levels"),
        ({"attribute": "x", "separator": "/", "equals": "//"}, "equals: '//' is no path of levels"),
        ({"attribute": ["a", "b"], "in": ["x/y/z"]}, "in: 'x/y/z' has 3 levels, and attribute names 2"),
        ({"attribute": "x", "equals": 1, "missing": "kepp"}, 'missing=\'kepp\': expected "drop" or "keep"'),
        ({"attribute": "x", "equals": 1, "missing": False}, "missing=False: expected"),
        ({"block": "a"}, "block='a': expected a list of item ids"),
        ({"block": [1.5]}, "block=[1.5]: expected a list of item ids"),
        ({"allow": []}, "allow: the list is empty, so that nothing could be recommended"),
        ({"block_file": "none.txt"}, "none.txt cannot be read (No such file or directory)"),
        ({"block_file": 3}, "block_file=3: expected a file name"),
        ({"name": "", "block": ["a"]}, "name='': expected text"),
        ({"name": 3, "block": ["a"]}, "name=3: expected text"),
        ("block", "expected a table, found 'block'"),
    ],
)
def test_rules_that_make_no_sense(rule: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rules({"block": ["a"]}, rule)
    assert str(refused.value).startswith("rules.toml: rule 2")
    assert message in str(refused.value)


def test_a_refused_rule_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^rules.toml: rule 1 \('cheap'\): between=3"):
        rules({"name": "cheap", "attribute": "price", "between": 3})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rules.toml", "", "there is no rule; write at least one, as [[rule]]"),
        ("rules.toml", "[rule]\nblock = ['a']", "write [[rule]] with two brackets"),
        ("rules.toml", "[[rules]]\nblock = ['a']", "the file has no 'rules'; did you mean 'rule'?"),
        (
            "rules.toml",
            "block = ['a']",
            "the file has no 'block'; it stands in a rule: write it below a [[rule]]",
        ),
        ("rules.toml", "[[rule]\n", "cannot be read as TOML"),
        ("rules.toml", "[[rule]]\nblock = ['a']\n[[rule]]\nblock = ['b']", "rules 1 and 2 are both"),
        ("rules.json", "{", "cannot be read as JSON"),
        ("rules.json", "[]", 'expected {"rule": [...]}, found list'),
        ("rules.json", '{"rule": []}', "there is no rule"),
        ("rules.json", '{"rule": "x"}', "there is no rule"),
        ("rules.json", '{"rule": [{"block": ["a"], "block": ["b"]}]}', "the key 'block' stands twice"),
        ("rules.json", "[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_files_of_rules_that_make_no_sense(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ConfigError) as refused:
        Rules.read(tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path / name}: ")
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["none.toml", "none.json"])
def test_a_file_of_rules_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Rules.read(tmp_path / name)


def test_a_list_of_items_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        Rules.of({"rule": [{"block_file": "blocked.txt"}]}, folder=tmp_path)


# -- answers


TRAIN = Sessions.from_lists([list("abcdefgh"), list("abab"), list("cdcd"), list("abce"), list("fgh")])


@pytest.fixture(scope="module")
def model() -> nextclick.Recommender:
    return nextclick.VSKNN().fit(TRAIN)


@pytest.mark.parametrize(
    ("given", "session", "options", "reason"),
    [
        ([{"name": "brand", "attribute": "brand", "equals": "none"}], "a", {},
         "no item satisfies rule 'brand'"),
        ([{"attribute": "price", "within": [3, 4]}], "ba", {},
         "no item satisfies rule 'price from 3 to 4 times that of the anchor' for anchor a"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"}], "a", {},
         "only 2 items satisfy rule 'maker' for anchor a"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"}], "e", {},
         "only 1 item satisfies rule 'maker' for anchor e"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"}], "e", {"exclude_seen": True},
         "no item outside the session satisfies rule 'maker' for anchor e"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"}], "ca", {"exclude_seen": True},
         "no item outside the session satisfies rule 'maker' for anchor a"),
        ([{"name": "big", "attribute": "size", "between": [41, 50]}], "b", {"exclude_seen": True},
         "only 1 item outside the session satisfies rule 'big'"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"},
          {"name": "big", "attribute": "size", "between": [43, 50]}], "a", {},
         "no item satisfies all rules for anchor a: 'maker' leaves 2, 'big' leaves 1"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"},
          {"name": "big", "attribute": "size", "between": [43, 50]}], "", {},
         "only 1 item satisfies all rules: 'maker' leaves 8, 'big' leaves 1"),
        ([{"name": "maker", "attribute": "brand", "same": "anchor"},
          {"name": "none", "attribute": "size", "equals": 99}], "a", {},
         "no item satisfies rule 'none'"),
        ([{"block": ["a"]}], "a", {}, None),  # five items are left, as many as asked for
        ([{"block": ["a"]}], "bcd", {"k": 20, "exclude_seen": True},
         "only 4 items outside the session satisfy rule 'not on a list of 1'"),
        ([{"allow": list("abcdefgh")}], "b", {"k": 20}, None),  # short, but not by rules
    ],
)  # fmt: skip
def test_a_short_list_says_why(
    model: nextclick.Recommender, given: Any, session: str, options: dict[str, Any], reason: str | None
) -> None:
    filter = rules(*given).bind(table(), model.vocabulary)
    answer = model.recommend(list(session), **{"k": 5, **options}, filter=filter)
    assert answer.reason == reason
    assert answer.to_json().get("reason") == reason
    assert ("reason" in answer.to_json()) == (reason is not None)
    assert (f"short: {reason}" in repr(answer)) == (reason is not None)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_one_many_and_a_file_of_sessions_give_the_same_lists(
    model: nextclick.Recommender, tmp_path: Path, exclude_seen: bool
) -> None:
    filter = rules(
        {"attribute": "category", "same": "anchor", "depth": 1}, {"attribute": "price", "between": [20, 150]}
    ).bind(table(), model.vocabulary)
    sessions = [list("a"), list("cd"), [], ["gone"], ["e", "gone"], list("gfa"), list("h")]
    many = model.recommend_many(sessions, 3, exclude_seen=exclude_seen, filter=filter)
    assert many == [model.recommend(s, 3, exclude_seen=exclude_seen, filter=filter) for s in sessions]
    lines = [json.dumps({"session": n, "items": items}) for n, items in enumerate(sessions)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    counts = recommend_file(
        model, tmp_path / "in.jsonl", tmp_path / "out.jsonl", k=3, exclude_seen=exclude_seen, filter=filter,
        batch=2,
    )  # fmt: skip
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert written == [{"session": n, **answer.to_json()} for n, answer in enumerate(many)]
    assert counts.shortened == sum(answer.reason is not None for answer in many) > 0
    plain = model.recommend_many(sessions, 8, exclude_seen=exclude_seen)
    for answer, session, unfiltered in zip(many, sessions, plain, strict=True):
        known = [item for item in session if item != "gone"]
        allowed = filter.allowed(Queries.of([model.vocabulary.codes_of(known)]))[0]
        items = [r for r in unfiltered if allowed[model.vocabulary.code_of(r.item)]]
        assert list(answer) == items[:3]


def test_a_filter_moves_to_another_model_only_when_it_is_another() -> None:
    filter = rules({"attribute": "brand", "same": "anchor"}).bind(table(), VOCABULARY)
    assert filter.bound_to(VOCABULARY) is filter
    same = Vocabulary(list(MODEL))
    assert filter.bound_to(same) is filter
    filter.check(same)
    moved = filter.bound_to(Vocabulary(list("hgfedcba")))
    assert moved is not filter
    assert moved.allowed(Queries.of([[7]])).tolist() == [[item in "ac" for item in "hgfedcba"]]
    with pytest.raises(ConfigError, match=r"rules.toml: bound to 8 items of another model"):
        filter.check(Vocabulary(list("hgfedcba")))


def test_one_request_among_many_items_is_quick() -> None:
    """About 0.03 ms on the machine it was written on; the bound leaves room for a busy one."""
    n, rng = 50_000, np.random.default_rng(0)
    items = ItemTable.of(
        {
            "id": np.arange(n),
            "category": [f"d{a}/c{b}" for a, b in rng.integers(0, [10, 20], (n, 2)).tolist()],
            "price": rng.random(n),
        }
    )
    filter = rules(
        {"attribute": "category", "same": "anchor", "depth": 1}, {"attribute": "price", "within": [0.5, 2]}
    ).bind(items, Vocabulary(np.arange(n)))
    queries, seconds = [Queries.of([[item]]) for item in range(0, n, 250)], []
    for query in queries:
        start = time.process_time()
        filter.allowed(query)
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.0002


# -- evaluation


def test_a_forbidden_target_is_a_miss_and_the_report_says_so() -> None:
    """Of the targets b, b, c, d of pop, the list is a, b, c, d ...; acme's a and c are forbidden."""
    train = Sessions.from_lists([list("aaaabbbccd")])
    test = Sessions(
        np.array([0, 1, 0, 1, 1, 2, 2, 3], np.int32), np.array([0, 2, 4, 6, 8]), np.arange(8),
        train.vocabulary, train.n_items,
    )  # fmt: skip
    model = nextclick.Popularity().fit(train)
    filter = rules({"name": "no acme", "attribute": "brand", "not_in": ["acme"]}).bind(
        table(), model.vocabulary
    )
    report = nextclick.evaluate([model], test, k=(1, 2), filter=filter)
    (result,) = report.models
    assert result.metrics["recall@1"] == 2 / 4  # b leads what is left
    assert result.metrics["recall@2"] == 3 / 4  # d is second, c a miss
    assert result.metrics["mrr@2"] == (1 + 1 + 0 + 1 / 2) / 4
    assert result.metrics["coverage@2"] == 2 / 4
    assert (result.items_left, result.targets_forbidden) == (2.0, 1)
    assert report.rules == ("no acme (brand is not acme, or no brand)",)
    assert report.notes[0] == (
        "Rules were in force, and only items that meet them were ranked: no acme (brand is not acme, or no "
        "brand). They leave 2.0 items on average and forbid 1 of 4 targets, which count as misses."
    )
    written = json.loads(json.dumps(report.to_json()))
    assert written["rules"] == list(report.rules)
    assert written["models"][0]["items_left"] == 2.0
    assert written["models"][0]["targets_forbidden"] == 1
    plain = nextclick.evaluate([model], test, k=(1, 2))
    assert plain.rules == ()
    assert plain.models[0].items_left is plain.models[0].targets_forbidden is None


def test_models_of_different_items_are_each_filtered() -> None:
    train = Sessions.from_lists([list("abcd"), list("abdc"), list("acbd")])
    less = Sessions.from_lists([list("dcb"), list("db")])
    models = {"all": nextclick.Popularity().fit(train), "less": nextclick.Popularity().fit(less)}
    filter = rules({"attribute": "brand", "same": "anchor"}).bind(table(), models["all"].vocabulary)
    report = nextclick.evaluate(models, train, k=2, filter=filter)
    for name, model in models.items():
        alone = nextclick.evaluate({name: model}, train, k=2, filter=filter.bound_to(model.vocabulary))
        assert alone.models[0].metrics == next(r for r in report.models if r.name == name).metrics
    # a->b, b->c, c->d, a->b, d->c, c->b change the brand; after a, unknown to "less", all are allowed.
    assert report.notes[0].endswith(
        "They leave to all 2.0 items on average and forbid 6 of 9 targets; to less 2.1 items on average and "
        "forbid 4 of 9 targets, which count as misses."
    )


def test_rules_that_leave_nothing_can_be_measured() -> None:
    model = nextclick.Popularity().fit(TRAIN)
    filter = rules({"attribute": "brand", "equals": "none"}).bind(table(), model.vocabulary)
    report = nextclick.evaluate([model], TRAIN, k=5, filter=filter)
    assert report.models[0].metrics["recall@5"] == 0
    assert report.models[0].items_left == 0
    assert report.models[0].targets_forbidden == report.pairs
    json.dumps(report.to_json(), allow_nan=False)
