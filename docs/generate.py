"""Write what the code itself says into the documentation: docs/cli.md, and the settings in docs/models.md.

    python docs/generate.py           writes both
    python docs/generate.py --check   exits with 1 if they are not up to date

tests/test_docs.py checks the same.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path

import click

from nextclick.cli import COMMANDS, main
from nextclick.models import MODELS
from nextclick.settings import as_text, describe_type, settings_of

DOCS = Path(__file__).resolve().parent

INTRODUCTION = """# Command line

The commands in the order of a first visit. `nextclick COMMAND --help` prints the same.

- **Results** go to stdout, as JSON or as a table. **Progress and messages** go to stderr. So
  `nextclick fit ... > fit.json` keeps the result and still shows what happens. Where stderr is no terminal,
  as in the log of a job, long work says once a minute how far it is.
- **Exit code**: 0 when done, 1 for an error in data, settings or files, 2 for a command that was not
  written as it should be. An error says what is wrong, what was found and what to do.
- **Output folders and files** are written aside and moved into place when complete. A command that fails
  or is interrupted leaves what was there before. An existing folder is replaced only with `--overwrite`.
- **Own ids.** Sessions and items are named by the ids of your log, everywhere.
- `nextclick --version` prints the version; `--help` or `-h` prints the help of any command.
"""

MORE = {
    "demo": "[the demo shop](simulator.md).",
    "generate": "[past one machine's memory](scale.md#clicks-to-try-it-with).",
    "prepare": "[data](data.md).",
    "features": "[item features](features.md).",
    "features neighbours": "[item features](features.md#looking-at-them).",
    "features add": "[item features](features.md#items-that-are-new).",
    "plan": "[past one machine](plan.md).",
    "models": "[models](models.md).",
    "fit": "[models](models.md), [model directories](artifacts.md).",
    "evaluate": "[evaluation](evaluation.md).",
    "tune": "[settings and their search](tuning.md).",
    "run": "[experiments](experiments.md).",
    "recommend": "[tutorial](tutorial.md#recommend).",
    "explain": "[explain](explain.md).",
    "neighbours": "[items near to each other](nearest.md).",
    "index": "[items near to each other](nearest.md#an-index-for-large-catalogues).",
    "serve": "[serving](serving.md).",
    "export": "[serving](serving.md#networks-without-pytorch).",
    "experiment": "[online experiments](online.md).",
    "refresh": "[serving](serving.md#versions).",
    "rollback": "[serving](serving.md#versions).",
    "keys": "[serving](serving.md#keys).",
}
"""Where each command is explained at length."""


def cli_page() -> str:
    """Return docs/cli.md."""
    context = click.Context(main, info_name="nextclick")
    parts = [INTRODUCTION]
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        parts += _sections(name, command, click.Context(command, info_name=name, parent=context))
    return "\n".join(parts)


def _sections(name: str, command: click.Command, context: click.Context) -> list[str]:
    """Return the section of a command, or one for each command of a group; and of those that hang on it."""
    parts = (
        [_command(f"{name} {part}", of, click.Context(of, info_name=part, parent=context))
         for part, of in command.commands.items()]
        if isinstance(command, click.Group)
        else [_command(name, command, context)]
    )  # fmt: skip
    others: dict[str, click.Command] = getattr(command, "others", {})
    return parts + [
        _command(
            f"{name} {word}", other, click.Context(other, info_name=f"{name} {word}", parent=context.parent)
        )
        for word, other in others.items()
    ]


def _command(name: str, command: click.Command, context: click.Context) -> str:
    prose, example = _help(command)
    lines = [f"## nextclick {name}", "", "```text", context.get_usage().removeprefix("Usage: "), "```", ""]
    lines += [
        prose,
        "",
        f"More: {MORE.get(name) or MORE[name.split()[0]]}",
        "",
        "```console",
        *example,
        "```",
        "",
    ]
    rows = [row for parameter in command.params if (row := _option(parameter)) is not None]
    lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _help(command: click.Command) -> tuple[str, list[str]]:
    """Return the paragraphs of a command's help, and the lines of its example."""
    text = inspect.cleandoc(command.help or "")
    prose, _, example = text.partition("\b\n")
    lines = [line.strip() for line in example.splitlines() if line.strip().startswith("nextclick")]
    return prose.strip(), lines


def _option(parameter: click.Parameter) -> str | None:
    if not isinstance(parameter, click.Option):
        return None
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    meaning = parameter.help or ""
    told = re.search(r"\s*\[default: (.*?)\]", meaning)
    if told:
        meaning, default = meaning.replace(told[0], ""), told[1]
    elif parameter.required:
        default = "required"
    elif parameter.is_flag or not parameter.show_default:
        default = ""
    else:
        default = f"`{_plain(parameter.default)}`"
    if isinstance(parameter.type, click.Choice):
        names += " " + " ".join(f"`{choice}`" for choice in parameter.type.choices)
    elif not parameter.is_flag:
        names += f" {parameter.metavar or _type(parameter.type)}".replace("|", "\\|")
    return f"| {names} | {default} | {meaning} |"


def _type(kind: click.ParamType) -> str:
    plain = {"integer": "NUMBER", "integer range": "NUMBER", "path": "PATH", "file": "FILE", "text": "TEXT"}
    return plain.get(kind.name, kind.name)


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def with_settings(page: str) -> str:
    """Return docs/models.md with the settings of every model between its markers.

    Raises ValueError when a model has no markers.
    """
    for name, model in MODELS.items():
        start, end = f"<!-- settings: {name} -->", f"<!-- /settings: {name} -->"
        if start not in page or end not in page:
            raise ValueError(f"docs/models.md lacks the markers {start} and {end}")
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{_settings(model)}\n{end}{rest.partition(end)[2]}"
    return page


def _settings(model: type[typing.Any]) -> str:
    hints = typing.get_type_hints(model)
    fields = settings_of(model)
    lines = ["", "No settings.", ""]
    if fields:
        lines = ["", "| setting | default | accepts | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{field.name}` | {as_text(field.default)} | {describe_type(field, hints)} | "
            f"{_escaped(field.metadata['about'])} |"
            for field in fields
        ]
        lines.append("")
    presets: Mapping[str, Mapping[str, object]] = model.presets
    for preset, values in presets.items():
        chosen = " ".join(f"{name}={as_text(value)}" for name, value in values.items())
        lines += [f"`--set preset={preset}`: {chosen}", ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def pages() -> dict[Path, str]:
    """Return the content that each generated page should have."""
    models = DOCS / "models.md"
    return {DOCS / "cli.md": cli_page(), models: with_settings(models.read_text("utf-8"))}


def run(check: bool) -> int:
    """Write the pages, or only say which of them are not up to date; return the exit code."""
    stale = 0
    for file, content in pages().items():
        if not file.exists() or file.read_text("utf-8") != content:
            stale += 1
            if check:
                print(f"{file.name} is not up to date: run python docs/generate.py", file=sys.stderr)
            else:
                file.write_text(content, "utf-8")
                print(f"wrote {file.name}", file=sys.stderr)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(run("--check" in sys.argv[1:]))
