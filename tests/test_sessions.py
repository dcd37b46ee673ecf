"""Item ids, sessions and queries as flat arrays, against slow lists; prepared data sets on disk."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import ArtifactError, DataError, Dataset, Queries, Sessions, Vocabulary
from nextclick.dataset import FORMAT_VERSION
from synthetic import int_sessions, text_sessions

STRANGE = [
    "",
    " ",
    "é",
    "e\u0301",
    "日本",
    "👩‍👩‍👧",
    "\"'`",
    "a,b\n\tc\\",
    "\0",
    "x" * 10_000,
    "-1",
    "None",
    "NaN",
]


def lists_of(sessions: Sessions) -> list[list[Any]]:
    """Sessions as plain lists of the users' ids."""
    bounds = zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    return [sessions.vocabulary.ids_of(sessions.items[a:b]) for a, b in bounds]


# -- vocabulary


@pytest.mark.parametrize("ids", [STRANGE, [], [""], ["", "a"], ["a", ""]])
def test_text_ids_round_trip(ids: list[str]) -> None:
    vocabulary = Vocabulary.from_arrays(Vocabulary(ids).to_arrays())
    assert len(vocabulary) == len(ids)
    assert vocabulary.ids_of(range(len(ids))) == ids
    assert vocabulary.codes_of(ids).tolist() == list(range(len(ids)))


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), unique=True))
def test_any_text_ids_round_trip(ids: list[str]) -> None:
    vocabulary = Vocabulary.from_arrays(Vocabulary(ids).to_arrays())
    assert vocabulary.ids_of(vocabulary.codes_of(ids)) == ids


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True))
def test_integer_ids_round_trip(ids: list[int]) -> None:
    vocabulary = Vocabulary.from_arrays(Vocabulary(np.array(ids, np.int64)).to_arrays())
    assert vocabulary.ids_of(vocabulary.codes_of(ids)) == ids
    assert all(type(item) is int for item in vocabulary.ids_of(range(len(ids))))


def test_a_number_and_its_text_name_the_same_item() -> None:
    of_numbers, of_texts = Vocabulary(np.array([12, -3])), Vocabulary(["12", "-3"])
    for vocabulary in (of_numbers, of_texts):
        assert [vocabulary.code_of(item) for item in (12, "12", -3, "-3", np.int64(12))] == [0, 0, 1, 1, 0]
        assert [vocabulary.code_of(item) for item in (3, "3", "", "x", 2**70, "1e1")] == [-1] * 6


LOOKALIKES = [
    "012",
    " 12",
    "12 ",
    "+12",
    "1_2",
    "12.0",
    "１２",
    12.5,
    None,
    True,
    float("inf"),
    [],
    "9" * 5000,
]


@pytest.mark.parametrize("item", LOOKALIKES)
def test_what_merely_looks_like_an_item_is_unknown(item: Any) -> None:
    """Two texts must not name one item, and anything but an id names none."""
    assert Vocabulary(np.array([12, 1])).code_of(item) == -1
    assert Vocabulary(["12", "1"]).code_of(item) == -1


def test_codes_are_int32_and_may_be_none() -> None:
    codes = Vocabulary(["a"]).codes_of([])
    assert (codes.dtype, codes.tolist()) == (np.int32, [])


def test_first_codes() -> None:
    for vocabulary in (Vocabulary(["a", "b", "c"]), Vocabulary(np.array([5, 6, 7]))):
        assert vocabulary.first(2).ids_of([0, 1]) == vocabulary.ids_of([0, 1])
        assert (len(vocabulary.first(2)), len(vocabulary.first(9)), len(vocabulary.first(0))) == (2, 3, 0)


@pytest.mark.parametrize("ids", [["a", "b", "a"], np.array([1, 2, 1])])
def test_an_id_that_stands_twice_is_refused(ids: Any) -> None:
    with pytest.raises(DataError, match=r"item id ('a'|1) stands twice"):
        Vocabulary(ids).code_of(ids[1])


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"ids": np.zeros((2, 2), np.int64)},
        {"ids": np.zeros(2)},
        {"ids_utf8": np.zeros(2, np.uint8)},
        {"ids_ends": np.array([1])},
        {"ids_utf8": np.zeros(2, np.uint8), "ids_ends": np.array([1])},
        {"ids_utf8": np.zeros(2, np.uint8), "ids_ends": np.array([2, 1, 2])},
        {"ids_utf8": np.zeros(2, np.uint8), "ids_ends": np.array([-1, 2])},
        {"ids_utf8": np.zeros(2, np.uint8), "ids_ends": np.array([1.0, 2.0])},
        {"ids_utf8": np.full(2, 255, np.uint8), "ids_ends": np.array([2])},
        {"ids_utf8": np.zeros(2, np.int8), "ids_ends": np.array([2])},
    ],
)
def test_arrays_that_are_no_vocabulary_are_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"item ids|decode"):
        Vocabulary.from_arrays(arrays)


# -- sessions


@settings(deadline=None)
@given(lists=st.one_of(int_sessions, text_sessions))
def test_sessions_hold_what_the_lists_held(lists: list[list[Any]]) -> None:
    sessions = Sessions.from_lists(lists)
    counts = Counter(item for session in lists for item in session)
    assert lists_of(sessions) == lists
    assert len(sessions) == len(lists)
    assert sessions.lengths.tolist() == [len(session) for session in lists]
    assert sessions.session_of.tolist() == [s for s, session in enumerate(lists) for _ in session]
    assert sessions.n_pairs == sum(max(len(session) - 1, 0) for session in lists)
    assert sessions.n_items == len(counts)
    # Codes run from the most to the least clicked item, equal ones by their id.
    by_code = sessions.vocabulary.ids_of(range(sessions.n_items))
    assert by_code == sorted(counts, key=lambda item: (-counts[item], item))
    assert sessions.support().tolist() == [counts[item] for item in by_code]
    types = (sessions.items.dtype, sessions.offsets.dtype, sessions.times.dtype, sessions.support().dtype)
    assert types == (np.int32, np.int64, np.int64, np.int64)


@settings(deadline=None)
@given(lists=int_sessions)
def test_pairs_are_every_prefix_and_its_next_click(lists: list[list[int]]) -> None:
    sessions = Sessions.from_lists(lists)
    queries, positions = sessions.pairs()
    expected = [(session[:n], session[n]) for session in lists for n in range(1, len(session))]
    ids = sessions.vocabulary.ids_of
    found = [
        (ids(queries.prefix(i)), ids(sessions.items[positions[i : i + 1]])[0]) for i in range(len(queries))
    ]
    assert found == expected
    assert len(queries) == len(positions) == sessions.n_pairs
    if expected:
        assert np.shares_memory(queries.items, sessions.items)


@settings(deadline=None)
@given(lists=int_sessions, data=st.data())
def test_slices_are_views_and_equal_sliced_lists(lists: list[list[int]], data: st.DataObject) -> None:
    edges = st.one_of(st.none(), st.integers(-10, 10))
    which = slice(data.draw(edges), data.draw(edges))
    sessions = Sessions.from_lists(lists)
    part = sessions[which]
    assert lists_of(part) == lists[which]
    assert part.n_items == sessions.n_items
    assert part.vocabulary is sessions.vocabulary
    assert part.offsets[0] == 0
    if len(part.items):
        assert np.shares_memory(part.items, sessions.items)
        assert np.shares_memory(part.times, sessions.times)
    again = [(session[:n], session[n]) for session in lists[which] for n in range(1, len(session))]
    assert part.n_pairs == len(part.pairs()[0]) == len(again)
    inner = part[1:]
    assert lists_of(inner) == lists[which][1:]


@settings(deadline=None)
@given(lists=int_sessions, data=st.data())
def test_chosen_sessions_are_those_of_the_lists(lists: list[list[int]], data: st.DataObject) -> None:
    sessions = Sessions.from_lists(lists)
    which = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    chosen = sessions.where(np.array(which, np.bool_))
    wanted = [s for s, one in enumerate(which) if one]
    assert lists_of(chosen) == [lists[s] for s in wanted]
    assert chosen.times.tolist() == [time for s in wanted for time in sessions[s : s + 1].times.tolist()]
    assert chosen.vocabulary is sessions.vocabulary
    assert chosen.offsets[0] == 0


def test_slices_carry_times_and_events() -> None:
    sessions = Sessions(
        items=np.array([0, 1, 0, 2], np.int32),
        offsets=np.array([0, 2, 3, 4]),
        times=np.array([10, 20, 30, 40]),
        vocabulary=Vocabulary(["a", "b", "c"]),
        n_items=3,
        events=np.array([0, 1, 1, 0], np.uint8),
        event_names=("view", "buy"),
    )
    part = sessions[1:]
    assert part.times.tolist() == [30, 40]
    assert part.events is not None
    assert part.events.tolist() == [1, 0]
    chosen = sessions.where(np.array([True, False, True]))
    assert chosen.events is not None
    assert (chosen.events.tolist(), chosen.times.tolist()) == ([0, 1, 0], [10, 20, 40])
    assert (part.event_names, part.clock) == (("view", "buy"), True)
    with pytest.raises(ValueError, match="in order only"):
        sessions[::2]
    with pytest.raises(ValueError, match="in order only"):
        sessions[::-1]


def test_times_are_kept_or_counted() -> None:
    counted = Sessions.from_lists([["a", "b"], ["c"]])
    assert (counted.times.tolist(), counted.clock) == ([0, 1, 2], False)
    given_times = Sessions.from_lists([["a", "b"], ["c"]], [5, 6, 9])
    assert (given_times.times.tolist(), given_times.clock) == ([5, 6, 9], True)


@pytest.mark.parametrize("lists", [[], [[]], [[], []]])
def test_no_clicks_are_refused(lists: list[list[Any]]) -> None:
    with pytest.raises(DataError, match="no clicks"):
        Sessions.from_lists(lists)


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ([["a", 1]], "int.*str"),
        ([[1], ["1"]], "int.*str"),
        ([[1.5, 2.5]], "float"),
        ([[1, 2.0]], "float.*int"),
        ([[True, False]], "bool"),
        ([[True, 1]], "bool"),
        ([[None]], "NoneType"),
        ([[("a",)]], "tuple"),
        ([[b"a"]], "bytes"),
    ],
)
def test_ids_of_other_kinds_are_refused(lists: list[list[Any]], found: str) -> None:
    with pytest.raises(DataError, match=f"all integers or all text, found .*{found}"):
        Sessions.from_lists(lists)


def test_ids_beyond_64_bits_are_refused() -> None:
    for item in (2**63, -(2**63) - 1, 10**30):
        with pytest.raises(DataError, match="64 bits"):
            Sessions.from_lists([[item, 1]])
    assert Sessions.from_lists([[2**63 - 1, -(2**63)]]).n_items == 2


def test_numpy_ids_are_ids() -> None:
    numbers = Sessions.from_lists([np.array([7, 8, 7]), np.array([8])])
    assert lists_of(numbers) == [[7, 8, 7], [8]]
    texts = Sessions.from_lists([np.array(["b", "a"])])
    assert lists_of(texts) == [["b", "a"]]


@pytest.mark.parametrize("times", [[], [1], [1, 2, 3]])
def test_times_must_fit(times: list[int]) -> None:
    with pytest.raises(DataError, match=f"found {len(times)} times for 2 clicks"):
        Sessions.from_lists([["a", "b"]], times)


# -- queries

codes = st.lists(st.lists(st.integers(-2, 6), max_size=5), max_size=5)


@settings(deadline=None)
@given(prefixes=codes)
def test_queries_hold_their_prefixes(prefixes: Sequence[list[int]]) -> None:
    queries = Queries.of(prefixes)
    assert len(queries) == len(queries.starts) == len(queries.ends) == len(prefixes)
    assert [queries.prefix(i).tolist() for i in range(len(queries))] == prefixes
    assert queries.items.dtype == np.int32
    assert queries.starts.dtype == queries.ends.dtype == np.int64


@settings(deadline=None)
@given(prefixes=codes, n_items=st.integers(0, 8), data=st.data())
def test_known_leaves_out_the_unknown(prefixes: list[list[int]], n_items: int, data: st.DataObject) -> None:
    queries = Queries.of(prefixes).known(n_items)
    expected = [[code for code in prefix if 0 <= code < n_items] for prefix in prefixes]
    assert [queries.prefix(i).tolist() for i in range(len(queries))] == expected
    which = data.draw(st.lists(st.integers(0, len(prefixes) - 1))) if prefixes else []
    chosen = Queries.of(prefixes)[np.array(which, np.int64)].known(n_items)
    assert [chosen.prefix(i).tolist() for i in range(len(chosen))] == [expected[i] for i in which]


@settings(deadline=None)
@given(lists=int_sessions, n_items=st.integers(0, 6))
def test_known_prefixes_of_sessions(lists: list[list[int]], n_items: int) -> None:
    """Prefixes that overlap in one array stay right when clicks between them go."""
    queries, _ = Sessions.from_lists(lists).pairs()
    known = queries.known(n_items)
    for i in range(len(queries)):
        assert known.prefix(i).tolist() == [code for code in queries.prefix(i).tolist() if code < n_items]


# -- a prepared data set on disk


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    lines = ["session_id,item_id,timestamp"]
    for session in range(60):
        for click in range(5):
            lines.append(f"{session},item {rng.integers(12)},{1_600_000_000 + session * 20_000 + click}")
    (folder / "clicks.csv").write_text("\n".join(lines) + "\n")
    nextclick.prepare(folder / "clicks.csv", out=folder / "data")
    return folder / "data"


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def edit(path: Path, **changes: Any) -> None:
    info = json.loads((path / "prepare.json").read_text("utf-8"))
    (path / "prepare.json").write_text(json.dumps({**info, **changes}), "utf-8")


def refuse(path: Path, match: str = ".") -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        Dataset.load(path)
    assert str(path) in str(caught.value)


def test_the_parts_follow_each_other_in_time(prepared: Path) -> None:
    dataset = Dataset.load(prepared)
    parts = [dataset.train, dataset.validation, dataset.test]
    assert sum(map(len, parts)) == len(dataset.sessions) == 60
    assert lists_of(dataset.train) + lists_of(dataset.validation) == lists_of(dataset.full)
    for before, after in itertools.pairwise(parts):
        assert before.times.max() < after.times.min()
    assert dataset.train.items.max() < dataset.train.n_items
    assert dataset.full.items.max() < dataset.full.n_items
    assert (dataset.train.support() > 0).all()
    assert dataset.train.support().tolist() == sorted(dataset.train.support().tolist(), reverse=True)
    assert len(dataset.fingerprint) == 64


def test_its_arrays_are_mapped_and_cannot_be_written(prepared: Path) -> None:
    dataset = Dataset.load(prepared)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.items[0] = 3
    model = nextclick.VSKNN().fit(dataset.train)
    assert len(model.recommend(["item 3"], 5)) == 5


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": "nextclick-model"}', "[" * 100_000]
)
def test_foreign_descriptions_are_refused(data: Path, text: str) -> None:
    (data / "prepare.json").write_text(text)
    refuse(data)


def test_no_data_here(tmp_path: Path, prepared: Path) -> None:
    refuse(tmp_path, "no prepared data here; make it with: nextclick prepare")
    refuse(tmp_path / "nothing", "no prepared data here")
    refuse(prepared / "prepare.json")
    (tmp_path / "slice-1").mkdir()
    refuse(tmp_path, "it holds slices")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 99, None, "1", []])
def test_newer_formats_are_refused(data: Path, version: Any) -> None:
    edit(data, format_version=version)
    refuse(data, "upgrade nextclick")


@pytest.mark.parametrize(
    "name",
    ["format_version", "name", "clock", "splits", "n_items", "event_names", "arrays"],
)
@pytest.mark.parametrize("value", [None, "gone", [], {}, -1])
def test_damaged_descriptions_are_refused(data: Path, name: str, value: Any) -> None:
    info = json.loads((data / "prepare.json").read_text("utf-8"))
    if value == "gone":
        del info[name]
    elif (
        name in ("name", "clock")
        or (name, value) == ("format_version", -1)
        or (name == "event_names" and value in ([], {}))
    ):
        return  # any value that is there does
    else:
        info[name] = value
    (data / "prepare.json").write_text(json.dumps(info), "utf-8")
    refuse(data)


def test_counts_that_do_not_agree_are_refused(data: Path) -> None:
    info = json.loads((data / "prepare.json").read_text("utf-8"))
    for changes in (
        {"n_items": {**info["n_items"], "train": 13}},
        {"n_items": {**info["n_items"], "all": 11}},
        {"n_items": {**info["n_items"], "train": -1}},
        {"splits": {**info["splits"], "test": {**info["splits"]["test"], "sessions": [54, 61]}}},
        {"splits": {**info["splits"], "train": {**info["splits"]["train"], "sessions": [0, 55]}}},
    ):
        edit(data, **changes)
        refuse(data, "damaged")
        edit(data, **info)
    assert len(Dataset.load(data).sessions) == 60


def test_each_array_missing_cut_or_foreign_is_refused(data: Path) -> None:
    for file in sorted((data / "arrays").iterdir()):
        content = file.read_bytes()
        for changed in (content[:-1], content + b"\0", b"", pickle.dumps([1, 2])):
            file.write_bytes(changed)
            refuse(data, "prepare the data again")
        file.write_bytes(b"\0" * len(content))  # of the right size
        refuse(data)
        file.unlink()
        refuse(data, "no such file")
        file.write_bytes(content)
    assert len(Dataset.load(data).sessions) == 60


def test_arrays_of_objects_are_never_unpickled(data: Path) -> None:
    file = data / "arrays" / "items.npy"
    np.save(file, np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    info = json.loads((data / "prepare.json").read_text("utf-8"))
    edit(data, arrays={**info["arrays"], "items.npy": file.stat().st_size})
    refuse(data)


def test_damaged_clicks_are_refused_at_the_latest_by_fit(data: Path) -> None:
    """Sizes are checked when a data set is opened; what compiled loops would trust, when they run."""
    for name, value in (("items", 12), ("items", -1), ("offsets", -5), ("offsets", 10**9)):
        file = data / "arrays" / f"{name}.npy"
        content = file.read_bytes()
        array = np.load(file)
        array[3] = value
        np.save(file, array)
        with pytest.raises(DataError, match=r"beyond|damaged"):
            nextclick.Markov().fit(Dataset.load(data).train)
        file.write_bytes(content)


def test_the_test_part_is_not_to_be_fitted_on(tmp_path: Path) -> None:
    """It may hold items that training lacks; a model that counts only known ones must not see them."""
    lines = ["session_id,item_id,timestamp"]
    for session in range(40):
        new = "new" if session == 39 else "old"
        lines += [f"{session},{item},{1_600_000_000 + session * 50_000}" for item in ("a", "b", new)]
    (tmp_path / "clicks.csv").write_text("\n".join(lines) + "\n")
    dataset = nextclick.prepare(tmp_path / "clicks.csv", out=tmp_path / "data", min_support=1)
    assert dataset.test.items.max() >= dataset.test.n_items
    with pytest.raises(DataError, match="there to measure on"):
        nextclick.Markov().fit(dataset.test)
    with pytest.raises(DataError, match="beyond the 3 known ones"):
        nextclick.Markov().fit(replace(dataset.test, origin={}))
    assert nextclick.Markov().fit(dataset.sessions).n_items == 4


def test_changed_arrays_are_noticed_when_asked_for(tmp_path: Path) -> None:
    lines = [f"{n // 3},{n % 7},{1_600_000_000 + n}" for n in range(300)]
    (tmp_path / "clicks.csv").write_text("\n".join(["session_id,item_id,timestamp", *lines]) + "\n")
    nextclick.prepare(tmp_path / "clicks.csv", out=tmp_path / "data", min_support=1)
    Dataset.load(tmp_path / "data", verify=True)
    file = tmp_path / "data" / "arrays" / "items.npy"
    content = bytearray(file.read_bytes())
    content[-4] ^= 1  # another item, still a known one
    file.write_bytes(content)
    Dataset.load(tmp_path / "data")
    with pytest.raises(ArtifactError, match="changed since they were prepared"):
        Dataset.load(tmp_path / "data", verify=True)


def test_arrays_are_not_dumped_on_who_looks_at_them() -> None:
    sessions = Sessions.from_lists([["a", "b"], ["a", "c", "d"]])
    assert repr(sessions) == "<Sessions: 2 sessions, 5 clicks, 4 known items>"
    assert repr(sessions.vocabulary) == "<Vocabulary: 4 items, 'a', 'b', 'c', ...>"
    assert repr(sessions.pairs()[0]) == "<Queries: 3 prefixes>"
