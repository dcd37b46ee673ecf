"""Experiments: many models with several seeds on one data set, beside what was published for them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextclick import __version__, artifact, evaluation
from nextclick.experiment import work
from nextclick.experiment.page import sections
from nextclick.experiment.spec import Experiment, Published, Row, read
from nextclick.experiment.summary import HEAD, failures, lines, markdown, summary
from nextclick.experiment.work import Progress, Task
from nextclick.files import alone, new_file, write_json
from nextclick.report import write_html

__all__ = ["HEAD", "Done", "Experiment", "Published", "Row", "lines", "read", "run", "states"]

_Result = Mapping[str, Any] | None
_Results = list[tuple[Row, list[tuple[Task, _Result]]]]


@dataclass(frozen=True)
class Done:
    """What ``run`` did: the content of results.json, the files written, and the runs that failed."""

    content: Mapping[str, Any]
    files: tuple[Path, ...]
    failed: tuple[str, ...]


def run(
    experiment: Experiment,
    out: str | Path,
    *,
    rows: Sequence[str] = (),
    command: str = "",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Done:
    """Do what is not done yet of an experiment, and write what it came to.

    Every fit of a row (its seeds, on every slice) has a folder of its own below ``out``/runs, named by model,
    settings, seed, data and version; one that is there is not done again. A network that was stopped goes
    on from its last epoch. A row that fails is recorded, and the others go on.
    Written: results.json (after each fit), results.md and report.html, whose comparison is that of the first
    seed's models on the first data set; it has pictures where the extra ``report`` is installed.
    rows: do those of these labels only, and the rows that they build on; what is known of the others is shown
    all the same.
    Raises DataError for data that are missing or changed, or when another process works in ``out``, and
    ConfigError for labels that there are not.
    """
    out = Path(out)
    chosen = [experiment.row(label) for label in rows] or list(experiment.rows)
    tell, speak = progress or (lambda what, done, total: None), say or (lambda text: None)
    with alone(out):
        datasets = work.datasets_of(experiment, out, tell)
        features = work.features_of(experiment, out, tell)
        tasks: dict[str, list[Task]] = {}
        for row in experiment.rows:
            tasks[row.label] = work.tasks_of(row, datasets, out, tasks, features)
        known = {task.folder: task.done() for of_row in tasks.values() for task in of_row}

        def results() -> _Results:
            return [
                (row, [(task, known[task.folder]) for task in tasks[row.label]]) for row in experiment.rows
            ]

        def written() -> dict[str, Any]:
            content = summary(experiment, datasets, results(), command)
            write_json(out / "results.json", content)
            return content

        def complete(task: Task) -> Mapping[str, Any]:
            """Return what a task came to; do it, and first what it builds on, if it was not done."""
            result = known[task.folder]
            if result is None:
                failed = [one.row.label for one in task.generators if "error" in complete(one)]
                error = {"error": f"{', '.join(failed)} failed, and this row builds on it"}
                result = known[task.folder] = error if failed else work.do(task, tell)
                speak(_said(task, result))
                written()
            return result

        for row in chosen:
            for task in tasks[row.label]:
                complete(task)
        content = written()
        files = [out / "results.json", out / "results.md"]
        with new_file(files[1]) as aside:
            aside.write_text(markdown(content), "utf-8")
        if _report(content, results(), out, tell):
            files.append(out / "report.html")
    return Done(content, tuple(files), tuple(failures(content)))


def states(experiment: Experiment, out: str | Path) -> dict[str, str]:
    """Return what the last ``run`` in a folder says of each row: "done", "failed", "begun" or "not run".

    "changed" where the file asks for something else by now, of the row or of one that it builds on, or the
    version is another one: such a row is run again.
    """
    file = Path(out) / "results.json"
    content = json.loads(file.read_text("utf-8")) if file.exists() else {"rows": []}
    known = {row["label"]: row for row in content["rows"]}
    found: dict[str, str] = {}
    for row in experiment.rows:
        was = known.get(row.label, {"state": "not run"})
        found[row.label] = was["state"]
        if was["state"] == "not run":
            continue
        asked = [row.model, row.written, row.full, [seed for seed in row.seeds if seed is not None]]
        same = asked == [was["model"], was["written"], was["full"], was["seeds"]]
        on_changed = any(found[label] == "changed" for label in row.generators)
        if not same or on_changed or content["nextclick"] != __version__:
            found[row.label] = "changed"
    return found


def pictures_can_be_drawn() -> bool:
    """Return whether the extra ``report`` is installed; the report does without pictures otherwise."""
    return importlib.util.find_spec("matplotlib") is not None


def _said(task: Task, result: Mapping[str, Any]) -> str:
    name = f"{task.row.label}{'' if task.seed is None else f', seed {task.seed}'}"
    if "error" in result:
        return f"{name}: failed, {result['error']}"
    figures = ", ".join(f"{metric} {result['metrics'][metric]:.4f}" for metric in ("recall@20", "mrr@20"))
    return f"{name}: {figures}, fitted in {result['fit_seconds']:.0f} s"


def _report(content: Mapping[str, Any], results: _Results, out: Path, tell: Progress) -> bool:
    """Write report.html, unless it says the same already; without any model that was fitted, write none."""
    first = {
        row.label: of_row[0][0]
        for row, of_row in results
        if of_row[0][1] is not None and "error" not in of_row[0][1]
    }
    if not first:
        return False
    pictures = pictures_can_be_drawn()
    shown = {"rows": content["rows"], "pictures": pictures, "nextclick": content["nextclick"]}
    same = f"<!-- {hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()} -->"
    file = out / "report.html"
    if file.exists() and same in file.read_text("utf-8"):
        return True
    models = {label: artifact.load(task.folder / "model") for label, task in first.items()}
    dataset = next(iter(first.values())).dataset
    report = evaluation.evaluate(
        models, dataset, seed=work.BOOTSTRAP_SEED,
        paths={label: str(task.folder / "model") for label, task in first.items()},
        kept={label: task.folder / work.ANSWERS for label, task in first.items()},
        progress=lambda name, done, total: tell(f"comparing {name}", done, total),
    )  # fmt: skip
    title, html = (extra := sections(content))[0]
    write_html(report, file, dataset, pictures=pictures, extra=[(title, same + html), *extra[1:]])
    return True
