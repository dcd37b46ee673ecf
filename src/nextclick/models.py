"""The one table of recommenders by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nextclick import settings
from nextclick.baselines import Markov, Popularity, SessionPopularity
from nextclick.errors import ConfigError, nearest
from nextclick.factors.bpr_mf import BPRMF
from nextclick.factors.fpmc import FPMC
from nextclick.metric.recommender import SML
from nextclick.neighbours.item_knn import ItemKNN
from nextclick.neighbours.session_knn import SKNN, STAN, VMISKNN, VSKNN
from nextclick.network.gru4rec import GRU4Rec, GRU4RecPlus
from nextclick.network.narm import NARM
from nextclick.network.stamp import STAMP
from nextclick.parallel.prnn import PRNN
from nextclick.recommender import Recommender
from nextclick.rerank.blend import Blend
from nextclick.rerank.composite import Composite
from nextclick.rerank.rrcre import RRCRE

MODELS: dict[str, type[Recommender]] = {
    "pop": Popularity,
    "s-pop": SessionPopularity,
    "markov": Markov,
    "item-knn": ItemKNN,
    "sknn": SKNN,
    "vs-knn": VSKNN,
    "vmis-knn": VMISKNN,
    "stan": STAN,
    "bpr-mf": BPRMF,
    "fpmc": FPMC,
    "gru4rec": GRU4Rec,
    "gru4rec-plus": GRU4RecPlus,
    "stamp": STAMP,
    "narm": NARM,
    "rrcre": RRCRE,
    "blend": Blend,
    "sml": SML,
    "prnn": PRNN,
}
for _model in MODELS.values():
    _model.__doc__ = settings.documented(_model)


def find(name: str) -> type[Recommender]:
    """Return the recommender class of a name. Raises ConfigError that lists the names there are."""
    if name not in MODELS:
        raise ConfigError(f"no model {name!r}{nearest(name, MODELS)}\n  there are: {', '.join(MODELS)}")
    return MODELS[name]


def takes_generators(name: str) -> bool:
    """Return whether a model is made of others. Raises ConfigError as ``find``."""
    return issubclass(find(name), Composite)


def build(
    name: str,
    values: Mapping[str, Any] | None = None,
    *,
    full: bool = False,
    generators: Sequence[Recommender] = (),
) -> Recommender:
    """Return a new recommender with the given settings; ``preset`` among them chooses published ones.

    full: it is to learn from training and validation together; what holds sessions out to choose the number
    of epochs then trains again on all of them (refit=true), unless the settings say otherwise.
    generators: the recommenders that a model made of others builds on; none: what it takes by default.
    Raises ConfigError for an unknown name, setting or preset, a wrong type, a value out of range, or
    generators for a model that takes none.
    """
    model = find(name)
    given = dict(values or {})
    if full and any(setting.name == "refit" for setting in settings.settings_of(model)):
        given.setdefault("refit", True)
    preset = given.pop("preset", None)
    if generators and not issubclass(model, Composite):
        made_of_others = ", ".join(one for one in MODELS if takes_generators(one))
        raise ConfigError(f"{name} takes no generator; {made_of_others} do")
    if generators:
        given["generator"] = tuple(generators)
    if preset is not None:
        return model.preset(str(preset), **given)
    settings.check_names(model, given.keys() - {"generator"} if generators else given)
    return model(**given)
