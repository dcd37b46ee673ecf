"""Settings: types, ranges, choices, unknown names, and what the command line writes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextclick import MODELS, VSKNN, ConfigError, build, models, settings
from nextclick.settings import about


@dataclass(kw_only=True, eq=False)
class Sample:
    """A class with one setting of each kind."""

    name: ClassVar[str] = "sample"
    count: int = field(default=3, metadata=about("a count", low=1, high=9))
    share: float = field(default=0.5, metadata=about("a share", low=0, high=1))
    days: float | None = field(default=None, metadata=about("days, or none", low=0))
    last: int | None = field(default=None, metadata=about("last clicks, or none", low=1))
    switch: bool = field(default=False, metadata=about("a switch"))
    formula: Literal["narm", "cosine"] = field(default="narm", metadata=about("a choice"))
    label: str = field(default="x", metadata=about("a text"))
    most: int = field(default=0, metadata=about("at most", high=5))
    learnt: int = field(init=False, default=7)

    def __post_init__(self) -> None:
        settings.check(self)


def test_settings_are_what_the_constructor_takes() -> None:
    values = settings.values_of(Sample(count=4))
    assert values["count"] == 4
    assert "learnt" not in values
    assert list(values) == [f.name for f in settings.settings_of(Sample)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "sample: count=0: expected a whole number from 1 to 9"),
        ({"count": 10}, "from 1 to 9"),
        ({"count": 2.0}, "count=2.0: expected a whole number from 1 to 9, found float"),
        ({"count": "3"}, "found str"),
        ({"count": True}, "found bool"),
        ({"count": None}, "found NoneType"),
        ({"count": 10**30}, "from 1 to 9"),
        ({"share": -0.001}, "share=-0.001: expected a number from 0 to 1"),
        ({"share": float("nan")}, "expected a finite number"),
        ({"share": "0.5"}, "found str"),
        ({"share": True}, "found bool"),
        ({"share": None}, "found NoneType"),
        ({"days": -1}, "days=-1: expected a number or none of at least 0"),
        ({"days": float("inf")}, "expected a finite number"),
        ({"days": 10**400}, "expected a finite number"),
        ({"last": 0}, "expected a whole number or none of at least 1"),
        ({"last": 1.5}, "found float"),
        ({"switch": 1}, "switch=1: expected true or false, found int"),
        ({"formula": "cosin"}, "formula='cosin': choose one of narm, cosine"),
        ({"formula": None}, "choose one of narm, cosine"),
        ({"formula": []}, "choose one of narm, cosine"),
        ({"label": 3}, "label=3: expected text, found int"),
        ({"most": 6}, "expected a whole number of at most 5"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        Sample(**values)


def test_right_values_are_taken_as_their_type() -> None:
    sample = Sample(count=9, share=1, days=0, last=1, switch=True, formula="cosine", label="", most=-4)
    assert (sample.share, type(sample.share)) == (1.0, float)
    assert (sample.days, type(sample.days)) == (0.0, float)
    assert sample.last == 1
    assert Sample(days=None, last=None).days is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count=4", 4),
        (" count = 4 ", 4),
        ("share=1e-1", 0.1),
        ("share=1", 1.0),
        ("days=none", None),
        ("days=None", None),
        ("days=", None),
        ("days=2", 2.0),
        ("last=none", None),
        ("last=2", 2),
        ("switch=true", True),
        ("switch=No", False),
        ("switch=1", True),
        ("switch=0", False),
        ("formula=cosine", "cosine"),
        ("label=a=b", "a=b"),
        ("label=", ""),
        ("preset=paper", "paper"),
    ],
)
def test_parse_reads_each_type(text: str, value: Any) -> None:
    ((_, parsed),) = settings.parse(Sample, [text]).items()
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count", "write name=value"),
        ("count=four", "count=four: expected a whole number from 1 to 9"),
        ("count=4.5", "expected a whole number"),
        ("count=", "expected a whole number"),
        ("count=none", "expected a whole number"),
        ("share=half", "expected a number from 0 to 1"),
        ("switch=maybe", "expected true or false"),
        ("cuont=4", "sample has no setting 'cuont'; did you mean 'count'"),
        ("=4", "no setting ''"),
        ("learnt=4", "no setting 'learnt'"),
        ("Count=4", "no setting 'Count'; did you mean 'count'"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.parse(Sample, [text])


def test_parse_leaves_ranges_and_choices_to_the_constructor() -> None:
    for text in ("count=99", "share=nan", "formula=other"):
        with pytest.raises(ConfigError):
            Sample(**settings.parse(Sample, [text]))


def test_unknown_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"no setting 'sahre'; did you mean 'share'.*\n  it accepts: count, "
    ):
        settings.check_names(Sample, ["count", "sahre"])
    with pytest.raises(ConfigError, match="it accepts: none"):
        build("pop", {"k": 3})


# -- the table of models


def test_build_names_the_nearest_model() -> None:
    with pytest.raises(ConfigError, match="no model 'vsknn'; did you mean 'vs-knn'"):
        build("vsknn")
    with pytest.raises(ConfigError, match="there are: pop, s-pop"):
        models.find("zzzz")


PRESETS = [(name, preset) for name, model in MODELS.items() for preset in model.presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_presets_are_settings_that_build(name: str, preset: str) -> None:
    published: Mapping[str, Any] = MODELS[name].presets[preset]
    built = settings.values_of(build(name, {"preset": preset}))
    assert published.items() <= built.items()


def test_settings_beside_a_preset_win() -> None:
    assert build("item-knn", {"preset": "narm", "regularisation": 3}).regularisation == 3.0  # type: ignore[attr-defined]


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ConfigError, match="no preset 'narn'; did you mean 'narm'"):
        build("item-knn", {"preset": "narn"})
    with pytest.raises(ConfigError, match="it has: none"):
        build("pop", {"preset": "paper"})
    with pytest.raises(ConfigError, match="no preset"):
        build("item-knn", {"preset": []})


@pytest.mark.parametrize("name", MODELS)
def test_defaults_lie_in_their_own_ranges(name: str) -> None:
    default = settings.values_of(MODELS[name]())
    assert settings.values_of(build(name, default)) == default


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(MODELS)), data=st.data())
def test_any_value_is_taken_or_refused_as_a_user_error(name: str, data: st.DataObject) -> None:
    anything = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.lists(st.none(), max_size=1),
    )
    fields = [f.name for f in settings.settings_of(MODELS[name])] + ["preset", "other"]
    values = data.draw(st.dictionaries(st.sampled_from(fields), anything, max_size=4))
    with contextlib.suppress(ConfigError):
        built = settings.values_of(build(name, values))
        assert settings.values_of(build(name, built)) == built


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(MODELS)), data=st.data())
def test_any_text_is_parsed_or_refused_as_a_user_error(name: str, data: st.DataObject) -> None:
    fields = [f.name for f in settings.settings_of(MODELS[name])] + ["preset", "other"]
    text = data.draw(st.sampled_from(fields)) + data.draw(st.sampled_from(["=", "", " = "]))
    with contextlib.suppress(ConfigError):
        build(name, settings.parse(MODELS[name], [text + data.draw(st.text(max_size=8))]))


@pytest.mark.parametrize("name", [name for name in MODELS if settings.settings_of(MODELS[name])])
def test_whole_numbers_too_large_to_count_with_are_refused(name: str) -> None:
    """They would fail inside compiled loops, long after they were given."""
    for setting in settings.settings_of(MODELS[name]):
        if setting.type in ("int", "int | None"):
            with pytest.raises(ConfigError, match=setting.name):
                build(name, {setting.name: 10**30})


@pytest.mark.parametrize("name", MODELS)
def test_help_explains_every_setting(name: str) -> None:
    text = MODELS[name].__doc__ or ""
    for setting in settings.settings_of(MODELS[name]):
        assert f"{setting.name}: " in text
        assert setting.metadata["about"] in text


# -- where a search looks


@pytest.mark.parametrize("name", MODELS)
def test_what_is_searched_is_allowed_and_holds_the_default(name: str) -> None:
    model = MODELS[name]
    for setting in settings.settings_of(model):
        search = setting.metadata["search"]
        if search is None:
            continue
        log = isinstance(search, tuple) and search[0] == "log"
        ends = search[1:] if log else search
        if isinstance(search, tuple):
            low, high = ends
            assert low < high
            assert low > 0 or not log
            off = setting.default is None or (log and setting.default == 0)
            assert off or low <= setting.default <= high
            if isinstance(setting.default, int):
                assert type(low) is type(high) is int, f"{name}: {setting.name}"
        else:
            assert setting.default in search
            assert len({repr(choice) for choice in search}) == len(search) > 1
        for value in ends:  # the settings themselves say what is allowed
            assert getattr(build(name, {setting.name: value}), setting.name) == value


@pytest.mark.parametrize("name", [name for name in MODELS if settings.settings_of(MODELS[name])])
def test_every_model_with_settings_can_be_searched(name: str) -> None:
    assert any(setting.metadata["search"] is not None for setting in settings.settings_of(MODELS[name]))


def test_a_table_of_settings_reads_like_the_command_line() -> None:
    table = {"k": 7, "last_clicks": "none", "weighting": "div", "idf": 2, "preset": "paper"}
    read = settings.of_table(VSKNN, table)
    assert read == {"k": 7, "last_clicks": None, "weighting": "div", "idf": 2, "preset": "paper"}
    with pytest.raises(ConfigError, match="did you mean 'last_clicks'"):
        settings.of_table(VSKNN, {"last_click": 3})
    with pytest.raises(ConfigError, match="k=many: expected a whole number"):
        settings.of_table(VSKNN, {"k": "many"})
