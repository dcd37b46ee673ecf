"""The command line as a user types it: a small log of their own, from raw file to answers, and refusals."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import nextclick
import nextclick.demo
from nextclick import MODELS
from nextclick.cli import COMMANDS, main

NAMES = ["pop", "markov", "vs-knn"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: str | Path) -> str:
    """The message of a command that must fail as a user error: exit 1, no traceback, nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a raw log, its prepared data and three fitted models, all made by the commands."""
    folder = tmp_path_factory.mktemp("cli")
    with (folder / "clicks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["visit", "product", "when"])
        for s in range(400):
            for n in range(2 + s % 4):
                when = f"2025-03-{1 + s // 20:02d} {s % 20:02d}:{n:02d}:00"
                writer.writerow([f"visit {s}", f"café {(s * 7 + n) % 23}", when])
    ok("prepare", folder / "clicks.csv", "--session", "visit", "--item", "product", "--time", "when",
       "--out", folder / "data")  # fmt: skip
    for name in NAMES:
        ok("fit", folder / "data", name, "--out", folder / "models" / name)
    return folder


def test_help_of_every_command_has_an_example() -> None:
    assert all(name in ok("--help").output for name in COMMANDS)
    for name in COMMANDS:
        assert "Example" in ok(name, "--help").output


def test_help_does_not_wait_for_the_compiler() -> None:
    code = (
        "import sys, nextclick.cli\n"
        "try: nextclick.cli.main(['--help'])\n"
        "except SystemExit: print('numba' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "False"


def test_models_lists_and_describes_every_model() -> None:
    listed = ok("models").output
    described = json.loads(ok("models", "--json").stdout)
    assert [one["name"] for one in described] == list(MODELS)
    for name in MODELS:
        assert name in listed
        assert name in ok("models", name).output
    assert "'vs-knn'" in refused("models", "vsknn")


def test_fit_says_what_it_made(shop: Path, tmp_path: Path) -> None:
    said = json.loads(ok("fit", shop / "data", "vs-knn", "--out", tmp_path / "m", "--set", "k=7").stdout)
    assert said["model"] == "vs-knn"
    assert said["settings"]["k"] == 7
    assert said["path"] == str(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text("utf-8"))
    prepared = json.loads((shop / "data" / "prepare.json").read_text("utf-8"))
    assert manifest["facts"]["data"] == {
        "name": "data",
        "fingerprint": prepared["fingerprint"],
        "part": "train",
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("kk=7", "did you mean 'k'"),
        ("k=many", "a whole number"),
        ("k=0", "at least 1"),
        ("k", "name=value"),
        ("weighting=cubic", "one of same, div"),
        ("preset=papr", "did you mean 'paper'"),
    ],
)
def test_fit_refuses_settings(shop: Path, tmp_path: Path, setting: str, message: str) -> None:
    assert message in refused("fit", shop / "data", "vs-knn", "--out", tmp_path / "m", "--set", setting)
    assert list(tmp_path.iterdir()) == []


def test_settings_given_as_arguments_are_told_how(tmp_path: Path) -> None:
    fit: tuple[str | Path, ...] = ("fit", "data", "vs-knn", "--out", tmp_path / "m")
    wrong = run(*fit, "--set", "k=5", "sample_size=9", "idf=1")
    assert wrong.exit_code == 2
    assert "one by one: --set sample_size=9 --set idf=1" in wrong.stderr
    assert "one by one" not in run(*fit, "more").stderr


def test_fit_refuses_to_overwrite_unless_told(shop: Path, tmp_path: Path) -> None:
    ok("fit", shop / "data", "pop", "--out", tmp_path / "m")
    assert "--overwrite" in refused("fit", shop / "data", "pop", "--out", tmp_path / "m")
    ok("fit", shop / "data", "s-pop", "--out", tmp_path / "m", "--overwrite")
    assert json.loads((tmp_path / "m" / "manifest.json").read_text("utf-8"))["model"] == "s-pop"


def test_evaluate_writes_the_promised_json(shop: Path, tmp_path: Path) -> None:
    dirs = [shop / "models" / name for name in NAMES]
    shown = ok("evaluate", shop / "data", *dirs, "--k", "5,20", "--json", tmp_path / "r.json").stdout
    report = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert report["dataset"] == "data"
    assert report["k"] == [5, 20]
    assert report["pairs"] > 0
    assert [model["name"] for model in report["models"]] == NAMES
    for model in report["models"]:
        assert model["path"] == str(shop / "models" / model["name"])
        assert 0 <= model["recall@5"] <= model["recall@20"] <= 1
        assert 0 <= model["mrr@20"] <= model["recall@20"]
        assert model["predictions_per_second"] > 0
        assert model["name"] in shown
    kept = json.loads((shop / "models" / "pop" / "manifest.json").read_text("utf-8"))["metrics"]
    assert kept["recall@20"] == report["models"][0]["recall@20"]


def test_evaluate_writes_one_html_page(shop: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ok("evaluate", shop / "data", shop / "models" / "markov", "--html", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text("utf-8").lower().startswith("<!doctype html>")


def test_evaluate_prints_json_alone_on_stdout(shop: Path) -> None:
    report = json.loads(ok("evaluate", shop / "data", shop / "models" / "pop", "--json", "-").stdout)
    assert report["protocol"] == "next"
    more = ok("evaluate", shop / "data", shop / "models" / "pop", "--protocol", "remaining", "--json", "-")
    assert "map@20" in json.loads(more.stdout)["models"][0]


def test_evaluate_marks_restricted_candidates(shop: Path) -> None:
    arguments = ["evaluate", shop / "data", shop / "models" / "pop", "--candidates", "top:10", "--json", "-"]
    report = json.loads(ok(*arguments).stdout)
    assert report["candidates"] == 10
    assert any("overestimate" in note for note in report["notes"])


def test_models_fitted_on_validation_may_not_be_judged_on_it(shop: Path, tmp_path: Path) -> None:
    ok("fit", shop / "data", "pop", "--full", "--out", tmp_path / "m")
    said = refused("evaluate", shop / "data", tmp_path / "m", "--part", "validation")
    assert "has seen the validation sessions" in said
    ok("evaluate", shop / "data", shop / "models" / "pop", "--part", "validation")


def test_full_refits_a_network_on_validation_too_for_the_epochs_that_were_best(
    shop: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    values = {"epochs": 3, "dim": 4, "batch_size": 32, "patience": 1, "learning_rate": 0.05}
    given = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    ok("fit", shop / "data", "stamp", "--full", "--out", tmp_path / "m", *given)
    model, data = nextclick.load(tmp_path / "m"), nextclick.Dataset.load(shop / "data")
    assert model.facts["sessions"] == len(data.train) + len(data.validation)
    epochs = model.facts["epochs"]
    of_training = [epoch for epoch in epochs if epoch["stage"] == "training"]
    best = max(of_training, key=lambda epoch: (epoch["figure"], -epoch["epoch"]))
    assert [epoch["epoch"] for epoch in epochs if epoch["stage"] == "refit"] == [*range(1, best["epoch"] + 1)]
    alone = nextclick.build("stamp", {**values, "validation": 0.0, "epochs": best["epoch"]}).fit(data.full)
    assert all(np.array_equal(array, alone.state()[name]) for name, array in model.state().items())


def test_evaluate_tells_models_of_the_same_name_apart(shop: Path, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        ok("fit", shop / "data", "pop", "--out", tmp_path / parent / "m")
    shown = ok("evaluate", shop / "data", tmp_path / "a" / "m", tmp_path / "b" / "m", "--json", "-").stdout
    assert [model["name"] for model in json.loads(shown)["models"]] == ["a/m", "b/m"]


def test_evaluate_leaves_out_what_services_and_trainings_keep(shop: Path, tmp_path: Path) -> None:
    """``models/*`` names it too, once a model was served or a training was interrupted."""
    ok("fit", shop / "data", "pop", "--out", tmp_path / "m")
    for name in ("m.state", "n.training"):
        (tmp_path / name).mkdir()
    shown = ok("evaluate", shop / "data", *sorted(tmp_path.iterdir()), "--json", "-")
    assert [model["name"] for model in json.loads(shown.stdout)["models"]] == ["m"]
    assert "left out, as no models" in shown.stderr
    assert "m.state" in shown.stderr
    assert "no manifest.json" in refused("evaluate", shop / "data", tmp_path / "m.state")


def test_recommend_answers_in_own_ids(shop: Path) -> None:
    answer = json.loads(ok("recommend", shop / "models" / "markov", "café 3", "-k", "3").stdout)
    assert answer["items"][0]["item"] == "café 4"
    assert len(answer["items"]) == 3
    assert not answer["fallback"]
    table = ok("recommend", shop / "models" / "markov", "café 3", "-k", "3", "--format", "table").stdout
    assert "café 4" in table


def test_recommend_says_what_it_does_not_know(shop: Path) -> None:
    result = ok("recommend", shop / "models" / "markov", "never seen", "-k", "4")
    answer = json.loads(result.stdout)
    assert answer["unknown"] == ["never seen"]
    assert answer["fallback"]
    assert len(answer["items"]) == 4
    assert "never seen" in result.stderr


def test_recommend_for_a_file_equals_one_at_a_time(shop: Path, tmp_path: Path) -> None:
    model = shop / "models" / "vs-knn"
    sessions = {"s1": ["café 3"], "s2": ["café 9", "nothing", "café 10"], "s3": []}
    lines = [json.dumps({"session": name, "items": items}) for name, items in sessions.items()]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    ok("recommend", model, "--sessions", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl", "-k", "5")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [answer.pop("session") for answer in answers] == list(sessions)
    for answer, items in zip(answers[:2], [["café 3"], ["café 9", "nothing", "café 10"]], strict=True):
        assert answer == json.loads(ok("recommend", model, *items, "-k", "5").stdout)


def test_recommend_reads_a_click_log_in_any_order(shop: Path, tmp_path: Path) -> None:
    rows = ["visit,product,when", "b,café 5,2025-04-01 10:00:00", "a,café 4,2025-04-01 09:01:00",
            "a,café 3,2025-04-01 09:00:00"]  # fmt: skip
    (tmp_path / "today.csv").write_text("\n".join(rows), "utf-8")
    columns = ["--session", "visit", "--item", "product", "--time", "when"]
    said = ok("recommend", shop / "models" / "markov", "--sessions", tmp_path / "today.csv", "--out",
              tmp_path / "lists.csv", "-k", "1", *columns)  # fmt: skip
    assert json.loads(said.stdout) == {"sessions": 2, "fallbacks": 0, "unknown_items": 0, "shortened": 0}
    with (tmp_path / "lists.csv").open(encoding="utf-8", newline="") as file:
        lists = list(csv.DictReader(file))
    assert [(row["session"], row["item"]) for row in lists] == [("a", "café 5"), ("b", "café 6")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: expected"),
        ('{"items": ["a"]', "no JSON from character 17 on"),
        ("[1]", 'line 2: expected {"session": "s1", "items": ["a", "b"]}; found a list'),
        ('{"session": 1, "item": "a"}', "no key 'items', found: session, item"),
        ('{"items": "abc"}', "list of ids"),
        ('{"items": [1.5]}', "list of ids"),
        ('{"items": [null]}', "list of ids"),
    ],
)
def test_recommend_names_the_bad_line(shop: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"session": "s", "items": ["café 1"]}\n' + line + "\n", "utf-8")
    said = refused("recommend", shop / "models" / "pop", "--sessions", tmp_path / "in.jsonl", "--out",
                   tmp_path / "out.jsonl")  # fmt: skip
    assert message in said
    assert not (tmp_path / "out.jsonl").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


# Item n is of shelf n % 3 and of price n; café 22 is not in the table, "tea" not in the model.
RULES = """
[[rule]]
name = "same shelf"
attribute = "shelf"
same = "anchor"

[[rule]]
name = "not cheap"
attribute = "price"
between = [4, 100]
"""


@pytest.fixture
def rules(tmp_path: Path) -> list[str | Path]:
    """The options of a command under rules."""
    rows = ["code,shelf,price", *(f"café {n},shelf {n % 3},{n}" for n in range(22)), "tea,shelf 1,9"]
    (tmp_path / "items.csv").write_text("\n".join(rows), "utf-8")
    (tmp_path / "rules.toml").write_text(RULES, "utf-8")
    return ["--rules", tmp_path / "rules.toml", "--items", tmp_path / "items.csv", "--items-id", "code"]


def test_recommend_under_rules(shop: Path, rules: list[str | Path]) -> None:
    result = ok("recommend", shop / "models" / "vs-knn", "café 1", "café 3", "-k", "4", *rules)
    answer = json.loads(result.stdout)
    numbers = [int(item["item"].removeprefix("café ")) for item in answer["items"]]
    assert len(numbers) == 4
    assert all(n % 3 == 0 and n >= 4 for n in numbers)
    assert "reason" not in answer
    assert "1 item unknown to the model, ignored" in result.stderr
    assert "1 item of the model not there, without values" in result.stderr
    short = ok("recommend", shop / "models" / "vs-knn", "café 3", "-k", "20", *rules)
    reason = "only 6 items satisfy all rules for anchor café 3: 'same shelf' leaves 8, 'not cheap' leaves 18"
    assert json.loads(short.stdout)["reason"] == reason
    assert reason in short.stderr
    assert len(json.loads(short.stdout)["items"]) == 6


def test_recommend_for_a_file_under_rules(shop: Path, rules: list[str | Path], tmp_path: Path) -> None:
    model = shop / "models" / "vs-knn"
    sessions = {"s1": ["café 3"], "s2": ["café 9", "café 10"], "s3": ["café 22"]}
    lines = [json.dumps({"session": name, "items": items}) for name, items in sessions.items()]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    said = ok("recommend", model, "--sessions", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl",
              "-k", "7", *rules)  # fmt: skip
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    for answer, (name, items) in zip(answers, sessions.items(), strict=True):
        alone = json.loads(ok("recommend", model, *items, "-k", "7", *rules).stdout)
        assert answer == {"session": name, **alone}
    assert [len(answer["items"]) for answer in answers] == [6, 6, 7]
    assert json.loads(said.stdout) == {"sessions": 3, "fallbacks": 0, "unknown_items": 0, "shortened": 2}


def test_evaluate_under_rules(shop: Path, rules: list[str | Path], tmp_path: Path) -> None:
    models = [shop / "models" / name for name in NAMES]
    page = tmp_path / "report.html"
    result = ok("evaluate", shop / "data", *models, "--k", "5", *rules, "--html", page, "--json",
                tmp_path / "report.json")  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["rules"] == [
        "same shelf (same shelf as the anchor)",
        "not cheap (price from 4 to 100)",
    ]
    for model in report["models"]:
        # Every click goes on to the next number, which is of another shelf: only what follows café 22, which
        # has none, may be found, and that is café 0, too cheap.
        assert model["targets_forbidden"] == report["pairs"]
        assert model["recall@5"] == 0
        assert 0 < model["items_left"] < 8
    said = " ".join(result.stdout.split())
    assert "Rules were in force, and only items that meet them were ranked: same shelf" in said
    assert "All 23 items that meet all rules in force are ranked" in page.read_text("utf-8")
    manifest = json.loads((models[0] / "manifest.json").read_text("utf-8"))
    assert manifest["metrics"]["rules"] == report["rules"]


def test_rules_are_refused_with_file_and_remedy(shop: Path, rules: list[str | Path], tmp_path: Path) -> None:
    model = shop / "models" / "pop"
    (tmp_path / "rules.toml").write_text(RULES.replace('"shelf"', '"self"'), "utf-8")
    said = refused("recommend", model, "café 3", *rules)
    assert "rules.toml: rule 1 ('same shelf'): " in said
    assert "items.csv has no column 'self'; did you mean 'shelf'?" in said
    assert "need the table of items; give it with --items" in refused(
        "recommend", model, "café 3", *rules[:2]
    )
    assert "no such file" in refused("evaluate", shop / "data", model, "--rules", tmp_path / "none.toml")
    for half, message in (
        (rules[2:4], "--items and --items-id go with --rules"),
        ([*rules[:2], *rules[4:]], "--items-id names a column of the file of --items"),
    ):
        for command in (["recommend", model, "café 3"], ["evaluate", shop / "data", model]):
            result = run(*command, *half)
            assert result.exit_code == 2
            assert message in result.stderr


def test_recommend_refuses_other_endings_and_half_options(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"items": ["café 1"]}', "utf-8")
    model = shop / "models" / "pop"
    assert ".csv" in refused(
        "recommend", model, "--sessions", tmp_path / "in.jsonl", "--out", tmp_path / "o.xml"
    )
    assert "no such file" in refused(
        "recommend", model, "--sessions", tmp_path / "no.jsonl", "--out", tmp_path / "o.csv"
    )
    assert run("recommend", model).exit_code == 2
    assert run("recommend", model, "--sessions", tmp_path / "in.jsonl").exit_code == 2


def test_wrong_directories_are_named(shop: Path, tmp_path: Path) -> None:
    assert "no prepared data here" in refused("fit", tmp_path, "pop", "--out", tmp_path / "m")
    assert "no model here" in refused("evaluate", shop / "data", tmp_path)
    assert "no model here" in refused("recommend", shop / "data", "x")
    assert "not a model" not in refused("fit", shop / "models" / "pop", "pop", "--out", tmp_path / "m")


def test_a_network_is_fitted_saved_and_asked(shop: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    ok("fit", shop / "data", "stamp", "--out", tmp_path / "m", "--set", "epochs=2", "--set", "dim=4")
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text("utf-8"))
    assert [epoch["epoch"] for epoch in manifest["facts"]["epochs"]] == [1, 2]
    answer = json.loads(ok("recommend", tmp_path / "m", "café 3", "-k", "3").stdout)
    assert len(answer["items"]) == 3
    ok("evaluate", shop / "data", tmp_path / "m", "--k", "5")


def test_a_log_shows_how_far_long_work_is(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    fit = ("fit", shop / "data", "stamp", "--set", "epochs=2", "--set", "dim=4", "--out")
    assert "epoch" not in ok(*fit, tmp_path / "quick").stderr
    monkeypatch.setattr("nextclick.cli.console.LOG_EVERY", 0.0)
    told = ok(*fit, tmp_path / "told")
    assert re.search(r"^stamp, epoch 2\b.*loss .*after epoch 1: \d+ of \d+", told.stderr, re.MULTILINE)
    assert json.loads(told.stdout)["model"] == "stamp"


def test_a_network_without_pytorch_names_the_extra(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "nextclick[neural]" in refused("fit", shop / "data", "narm", "--out", tmp_path / "m")


def test_fit_builds_on_saved_models(shop: Path, tmp_path: Path) -> None:
    models, data, kept = shop / "models", shop / "data", tmp_path / "candidates"
    over = ["--generator", models / "vs-knn", "--generator", models / "markov"]
    small = ["--set", "epochs=1", "--set", "dim=4", "--set", "k=10"]
    said = json.loads(
        ok("fit", data, "rrcre", *over, *small, "--candidates", kept, "--out", tmp_path / "r").stdout
    )
    assert [one["model"] for one in said["generators"]] == ["vs-knn", "markov"]
    assert said["generators"][0]["fitted on"]["part"] == "train"
    assert [one["held out"] for one in said["candidates"]] == ["session", "folds"]
    lists = sorted(path.name for path in kept.iterdir() if path.is_dir())
    assert [name.split("-")[0] for name in lists] == ["markov", "vs"]
    written = [(path, path.stat().st_mtime_ns) for path in kept.rglob("items.npy")]
    ok("fit", data, "rrcre", *over, *small, "--candidates", kept, "--out", tmp_path / "r2")
    assert [(path, path.stat().st_mtime_ns) for path in kept.rglob("items.npy")] == written  # used again
    assert not list(tmp_path.glob("*.training"))
    shown = ok("fit", data, "blend", *over, "--out", tmp_path / "b")
    said = json.loads(shown.stdout)
    short = [
        f"candidates of {of['model']}: {of['short']:,} lists" for of in said["candidates"] if of["short"]
    ]
    assert short  # vs-knn has no neighbour for some prefixes
    assert all(line in shown.stderr for line in short)
    assert sum(said["weights"]) == pytest.approx(1)
    assert f"weights: vs-knn {said['weights'][0]:g}, markov {said['weights'][1]:g}" in shown.stderr
    alone = ok("fit", data, "blend", "--set", "weights=0.4,0.6", "--out", tmp_path / "alone").stderr
    assert "no --generator given, it builds on item-knn and vs-knn, fitted along" in alone
    for name in ("r", "b"):
        answer = json.loads(ok("recommend", tmp_path / name, "café 1", "-k", 3, "--format", "json").stdout)
        assert len(answer["items"]) == 3
        shown = ok("explain", tmp_path / name, "café 1", "café 2").output
        assert "leaving" in shown.lower() or "without" in shown.lower()
    report = json.loads(ok("evaluate", data, tmp_path / "r", tmp_path / "b", "--json", "-").stdout)
    assert {one["model"] for one in report["models"]} == {"rrcre", "blend"}
    today = [
        {"session": str(n), "items": items} for n, items in enumerate((["café 1"], ["café 2", "café 3"]))
    ]
    (tmp_path / "today.jsonl").write_text("\n".join(map(json.dumps, today)), "utf-8")
    ok("recommend", tmp_path / "r", "--sessions", tmp_path / "today.jsonl", "--out", tmp_path / "lists.jsonl")
    assert len((tmp_path / "lists.jsonl").read_text("utf-8").splitlines()) == 2


def test_fit_refuses_generators_that_do_not_fit(shop: Path, tmp_path: Path) -> None:
    models, data, out = shop / "models", shop / "data", tmp_path / "m"
    generator = ["--generator", models / "vs-knn"]
    assert "markov takes no generator; rrcre, blend do" in refused(
        "fit", data, "markov", *generator, "--out", out
    )
    assert "keeps no candidates" in refused("fit", data, "markov", "--candidates", out, "--out", out)
    assert "the part 'train', and this is 'full'" in refused(
        "fit", data, "blend", "--full", *generator, "--out", out
    )
    assert "no model here" in refused("fit", data, "blend", "--generator", tmp_path / "no", "--out", out)
    assert "found 2 for 1 generators" in refused(
        "fit", data, "blend", *generator, "--set", "weights=1,2", "--out", out
    )
    ok("prepare", shop / "clicks.csv", "--session", "visit", "--item", "product", "--time", "when",
       "--holdout", "4d", "--out", tmp_path / "other")  # fmt: skip
    said = refused("fit", tmp_path / "other", "blend", *generator, "--out", out)
    assert "its generator vs-knn was fitted on other data" in said
    assert "fit both on the same part of the same data" in said
    assert not list(tmp_path.glob("m*"))


def test_demo_makes_everything(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    small = ["--set", "sessions=4000", "--set", "products=400"]
    shown = ok("demo", "--out", tmp_path / "demo", *small).output
    made = tmp_path / "demo"
    assert {path.name for path in made.iterdir()} == {"shop", "data", "models", "report.html", "report.json"}
    assert "oracle" in shown
    report = json.loads((made / "report.json").read_text("utf-8"))
    figures = {model["name"]: model["recall@20"] for model in report["models"]}
    assert set(figures) == {"pop", "markov", "item-knn", "vs-knn", "narm", "rrcre"}
    over = nextclick.load(made / "models" / "rrcre")
    assert [one.name for one in over.generators] == ["vs-knn", "narm"]  # type: ignore[attr-defined]
    page = (made / "report.html").read_text("utf-8")
    assert "Two stages and their generators" in page
    assert "recall@20 over vs-knn" in page
    assert figures["vs-knn"] > figures["pop"] + 0.2
    assert "exists already" in refused_demo(tmp_path / "demo", *small)


def test_the_full_demo_sees_the_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report names what has read the pictures."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    monkeypatch.setattr(nextclick.demo, "FULL", {"prnn": {**nextclick.demo.FULL["prnn"], "epochs": 1}})
    monkeypatch.setattr(nextclick.demo, "PASSES", 1)
    ok("demo", "--full", "--out", tmp_path / "demo", "--set", "sessions=1000", "--set", "products=300")
    report = json.loads((tmp_path / "demo" / "report.json").read_text("utf-8"))
    features = nextclick.Features.load(tmp_path / "demo" / "features")
    assert report["models"][-1]["features"] == [features.describe("image")]
    page = (tmp_path / "demo" / "report.html").read_text("utf-8")
    assert "prnn reads image: 128 columns, read by own (four convolutions" in page


def test_the_demo_does_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else known(name))
    said = run("demo", "--out", tmp_path / "demo", "--set", "sessions=1000", "--set", "products=300")
    assert said.exit_code == 0
    assert "nextclick[neural]" in said.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text("utf-8"))
    assert {model["name"] for model in report["models"]} == {"pop", "markov", "item-knn", "vs-knn"}
    assert "Two stages" not in (tmp_path / "demo" / "report.html").read_text("utf-8")


def refused_demo(out: Path, *arguments: str) -> str:
    result = run("demo", "--out", out, *arguments)
    assert result.exit_code == 1
    return result.stderr


@pytest.mark.parametrize("assignment", ["sessions=many", "sesions=4", "image=-1"])
def test_demo_refuses_a_wrong_shop(tmp_path: Path, assignment: str) -> None:
    assert assignment.split("=")[0][:3] in refused("demo", "--out", tmp_path / "demo", "--set", assignment)
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    result = run("modls")
    assert result.exit_code == 2
    assert "did you mean 'models'?" in result.stderr


def test_places_that_cannot_be_written_to_are_named(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    beyond = tmp_path / "file" / "x"
    assert f"{beyond}: cannot be written there" in refused(
        "fit", shop / "data", "pop", "--out", beyond
    ).replace("\n", "")
    result = run("evaluate", shop / "data", shop / "models" / "pop", "--json", beyond)
    assert result.exit_code == 1
    assert "recall@20" in result.stdout  # the figures are not lost
    assert "cannot be written there" in result.stderr
    assert run("evaluate", shop / "data", shop / "models" / "pop", "--html", tmp_path).exit_code == 2
    wrong = refused("evaluate", shop / "data", shop / "models" / "pop", "--html", tmp_path / "r.pdf")
    assert "r.pdf: the page is HTML" in wrong.replace("\n", "")


def test_evaluate_on_a_validation_part_that_is_not_there(shop: Path, tmp_path: Path) -> None:
    ok("prepare", shop / "clicks.csv", "--session", "visit", "--item", "product", "--time", "when",
       "--validation", "0", "--out", tmp_path / "data")  # fmt: skip
    said = refused("evaluate", tmp_path / "data", shop / "models" / "pop", "--part", "validation")
    assert "no validation part" in said
    assert "--validation" in said


def test_recommend_refuses_options_without_effect(shop: Path, tmp_path: Path) -> None:
    model = shop / "models" / "pop"
    assert run("recommend", model, "café 1", "--session", "visit").exit_code == 2
    files = ["--sessions", shop / "clicks.csv", "--out", tmp_path / "o.csv"]
    assert run("recommend", model, *files, "--format", "json").exit_code == 2
