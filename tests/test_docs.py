"""The documentation says what the package does: all options are in it, its code runs, its links resolve."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import duckdb
import pytest
from click.testing import CliRunner

import model_tables
import readme_table
import serving_tables
from conftest import ROOT
from nextclick import MODELS
from nextclick.cli import COMMANDS, main
from nextclick.shop import ShopConfig, simulate

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
README, TUTORIAL = ROOT / "README.md", DOCS / "tutorial.md"
# The simulator's page makes the shop in full size.
WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text("utf-8") and page.stem != "simulator"]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\$ )?(nextclick .*)$", re.MULTILINE)


def commands() -> list[tuple[str, click.Command]]:
    """Every command by what is typed for it; of a group, the commands in it."""
    context = click.Context(main)
    found = []
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        found += [(name, command)] if not isinstance(command, click.Group) else [
            (f"{name} {part}", of) for part, of in command.commands.items()
        ]  # fmt: skip
        found += [(f"{name} {word}", other) for word, other in getattr(command, "others", {}).items()]
    return found


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in _BLOCK.finditer(page.read_text("utf-8"))]


def typed(page: Path) -> list[str]:
    """The commands of a page's console blocks, as somebody types them."""
    return [line for kind, text in blocks(page) if kind == "console" for line in _COMMAND.findall(text)]


def by_id(page: Path) -> str:
    return page.name


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- what there is stands in the documentation


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    _, heading, section = text.partition(f"\n## nextclick {name}\n")
    assert heading
    section = section.partition("\n## ")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert f"`{option}`" in section, f"docs/cli.md: {command.name} lacks {option}"
    assert f"`nextclick {name.split()[0]}`" in README.read_text("utf-8")


def test_generated_pages_are_up_to_date() -> None:
    for file, content in script(DOCS / "generate.py").pages().items():
        assert file.read_text("utf-8") == content, f"{file.name}: run python docs/generate.py"


def test_the_table_of_figures_is_up_to_date() -> None:
    readme = README.read_text("utf-8")
    assert readme == readme_table.filled(readme), "run python benchmarks/readme_table.py"


def test_the_figures_of_the_service_are_up_to_date() -> None:
    for file, content in serving_tables.filled().items():
        assert file.read_text("utf-8") == content, "run python benchmarks/serving_tables.py"


def test_the_tables_of_models_are_up_to_date() -> None:
    for file, content in model_tables.filled().items():
        assert file.read_text("utf-8") == content, "run python benchmarks/model_tables.py"


def test_every_model_is_in_the_readme_and_described() -> None:
    readme, described = README.read_text("utf-8"), (DOCS / "models.md").read_text("utf-8")
    for name, model in MODELS.items():
        assert f"`{name}`" in readme
        assert f"\n## {name}\n" in described
        assert f"`{model.__name__}`" in described


def test_figures_are_shown_beside_published_ones() -> None:
    row = {
        "model": "pop",
        "settings": "defaults",
        "dataset": "diginetica",
        "recall@20": 0.12345,
        "mrr@20": 0.01,
    }
    published = {"recall@20": 0.5, "mrr@20": 0.25, "source": "A & B 2018"}
    rows = [{**row, "published": None}, {**row, "settings": "s", "published": published}]
    text = readme_table.table([*rows, {**rows[1], "model": "stan"}])
    assert "| `pop` | defaults |  | 0.123 / 0.010 | " in text
    assert "|  | s |  | 0.123 / 0.010 (0.500 / 0.250 a) |  |" in text
    assert "| `stan` | s |  | 0.123 / 0.010 (0.500 / 0.250 a) |" in text
    assert text.endswith("\n\nIn brackets, published: a A & B 2018.")
    half = {**row, "published": {"recall@20": 0.5, "source": "C"}}
    assert "| 0.123 / 0.010 (0.500 / – a) |" in readme_table.table([half])


def test_experiments_stand_in_the_table_of_figures_too() -> None:
    row = {"model": "pop", "written": "defaults", "mean": {"recall@20": 0.2, "mrr@20": 0.1}, "state": "done",
           "published": {"recall@20": 0.5, "mrr@20": 0.25, "source": "C"}}  # fmt: skip
    others = [
        {**row, "state": "failed", "written": "x"},
        {**row, "model": "stan", "published": {"source": "D"}},
    ]
    rows = readme_table.of_experiment({"name": "diginetica", "rows": [row, *others]})
    old = {"model": "pop", "settings": "defaults", "dataset": "diginetica", "recall@20": 0.9, "mrr@20": 0.9}
    text = readme_table.table([old, *rows])
    assert "| `pop` | defaults |  | 0.200 / 0.100 (0.500 / 0.250 a) |" in text
    assert "| `stan` | defaults |  | 0.200 / 0.100 |" in text
    assert "0.900" not in text


# -- links lead somewhere


def anchors(page: Path) -> set[str]:
    text = _BLOCK.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=by_id)
def test_internal_links_resolve(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}: no such heading"


# -- code runs


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    return simulate(ShopConfig(sessions=3000, products=256)).write(folder, thumbnails=False)


def lay_out(shop: Path, desk: Path) -> None:
    """Make nextclick-demo/shop, clicks.csv, events.csv, train.parquet, test.parquet and today.jsonl."""
    (desk / "nextclick-demo").mkdir()
    (desk / "nextclick-demo" / "shop").symlink_to(shop)
    clicks = f"SELECT * FROM '{shop / 'clicks.parquet'}'"
    with duckdb.connect() as connection:
        for query, file in (
            (clicks, "clicks.csv"),
            (f"SELECT session_id AS visitorid, item_id, timestamp, event FROM ({clicks})", "events.csv"),
            (f"{clicks} WHERE session_id % 10 < 8", "train.parquet"),
            (f"{clicks} WHERE session_id % 10 >= 8", "test.parquet"),
        ):
            connection.execute(f"COPY ({query}) TO '{desk / file}'")
    (desk / "today.jsonl").write_text('{"session": 1, "items": ["P0001", "P0002"]}\n')


def run_python(code: str, names: dict[str, object]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "documentation", "exec"), names)
    return printed.getvalue()


def run_command(line: str) -> None:
    words = [match for word in shlex.split(line)[1:] for match in sorted(glob.glob(word)) or [word]]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if page not in (README, TUTORIAL)], ids=by_id)
def test_python_runs_and_prints_what_is_shown(page: Path, desk: Path) -> None:
    names: dict[str, object] = {}
    for (kind, code), (next_kind, shown) in zip(blocks(page), [*blocks(page)[1:], ("", "")], strict=True):
        if kind == "python":
            printed = run_python(code, names)
            if printed and next_kind == "text":
                assert printed == shown


def test_the_tutorial_runs_from_top_to_bottom(desk: Path) -> None:
    every, names = blocks(TUTORIAL), {}
    for (kind, code), (next_kind, shown) in zip(every, [*every[1:], ("", "")], strict=True):
        if kind == "console":
            for line in _COMMAND.findall(code):
                run_command(line)
        elif kind == "python":
            printed = run_python(code, names)
            if next_kind == "text" and "print(" in code:
                assert printed == shown
    assert (desk / "report.html").stat().st_size > 10_000


def test_the_tutorials_tables_are_what_is_printed(desk: Path) -> None:
    """The counts of the preparation and the figures of the comparisons, not the speeds."""
    run_python(blocks(TUTORIAL)[1][1], {})
    for text in (text for kind, text in blocks(TUTORIAL) if kind == "console"):
        lines = _COMMAND.findall(text)
        for line in lines[:-1]:
            run_command(line)
        words = [match for word in shlex.split(lines[-1])[1:] for match in sorted(glob.glob(word)) or [word]]
        if words[0] == "recommend" and "--sessions" in words:
            continue
        result = CliRunner().invoke(main, words, env={"COLUMNS": "100"}, catch_exceptions=False)
        printed = "\n".join(" ".join(row.split()) for row in result.output.splitlines())
        for row in text.splitlines():
            if re.match(r"[\w\s-]+ [\d,.*~ -]+", row) and not row.startswith("$"):
                figures = " ".join(row.split()[:6])
                assert figures in printed, f"{lines[-1]}: {figures!r} is not in\n{result.output}"


def test_the_readme_runs_from_top_to_bottom(desk: Path, small_shop: Path) -> None:
    lay_out(small_shop, desk)
    every = blocks(README)
    at = next(n for n, (kind, _) in enumerate(every) if kind == "python")
    printed = run_python(every[at][1], {})
    # The figures shown are those of the shop in full size; here it is small.
    assert [len(line.split()) for line in printed.splitlines()] == [
        len(row.split()) for row in every[at + 1][1].splitlines()
    ]
    for made in ("data", "model"):
        (desk / made).rename(desk / f"{made}-of-python")
    for line in typed(README):
        run_command(line)
    assert (desk / "report.html").stat().st_size > 10_000
    assert (desk / "lists.csv").read_text("utf-8").startswith("session,rank,item,score")


@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=by_id)
def test_every_command_shown_is_understood(page: Path) -> None:
    """Also where it is not run: no option that does not exist, no argument too many."""
    root = click.Context(main)
    for line in typed(page):
        _, name, *words = shlex.split(line, comments=True)
        command = main.get_command(root, name)
        assert command is not None, line
        if isinstance(command, click.Group):
            name, *words = words
            assert name in command.commands, line
            command = command.commands[name]
        command.make_context(name, words, parent=root)
