"""``nextclick demo``"""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from nextclick.cli.console import messages
from nextclick.errors import ConfigError


@click.command()
@click.option(
    "--out",
    default="nextclick-demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for everything that the demo makes.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change the shop, for example sequence=0 or seed=2; repeat for more.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Train the networks for longer, and one that sees the thumbnails; a few minutes in all.",
)
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
def demo(out: Path, assignments: tuple[str, ...], full: bool, overwrite: bool) -> None:
    """Make a small shop with its visitors, compare recommenders on it, write a report. Needs no data.

    The shop is simulated: about 2,000 products and 60,000 sessions over 30 days, the same ones each time
    for the same seed. What signal is in it is documented; an oracle that knows the visitors' intents tells
    what the best possible recommender would score. With PyTorch a network, narm, is among them, and rrcre,
    which puts the candidates of vs-knn and narm into a better order. --full adds prnn, which sees the
    products' thumbnails through a small network trained on them.

    \b
    Example:
      nextclick demo
      nextclick demo --full
      nextclick demo --out other-shop --set seed=2
    """
    from nextclick import demo as whole
    from nextclick.report import print_report
    from nextclick.shop import ShopConfig

    config = ShopConfig.of(_numbers(assignments))
    made = whole.run(
        out, config, full=full, overwrite=overwrite, say=lambda text: messages.print(text, markup=False)
    )
    console = Console(highlight=False)
    print_report(made.report, console)
    oracle = json.loads((out / "shop" / "shop.json").read_text("utf-8"))["oracle"]
    ceiling = oracle[f"last_{config.oracle_days}_days"]["all"]
    visited = made.dataset.vocabulary.ids_of(made.dataset.test[:1].items[:2])
    console.print(
        f"\nAn oracle that knows every visitor's intent would reach recall@20 {ceiling['recall_at_20']:.3f}, "
        f"MRR@20 {ceiling['mrr_at_20']:.3f}.\n"
        f"Done in {sum(made.seconds.values()):.0f} s. Look at {out / 'report.html'} in a browser. Then:\n"
        f"  nextclick recommend {out / 'models' / 'vs-knn'} {' '.join(map(str, visited))}\n"
        f"  nextclick models\n"
        f"  nextclick fit {out / 'data'} stan --full --out {out / 'models' / 'stan'}\n"
        f"  nextclick evaluate {out / 'data'} {out / 'models'}/* --html again.html\n"
        "With a log of your own:  nextclick prepare clicks.csv --out data",
        markup=False,
        soft_wrap=True,
    )


def _numbers(assignments: tuple[str, ...]) -> dict[str, int | float]:
    """Read NAME=VALUE texts as numbers, whole ones where they are."""
    numbers: dict[str, int | float] = {}
    for assignment in assignments:
        name, _, text = (part.strip() for part in assignment.partition("="))
        try:
            numbers[name] = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            raise ConfigError(f"--set {assignment}: write NAME=NUMBER, for example --set seed=2") from None
    return numbers
