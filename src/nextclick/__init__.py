"""Session-based recommendation: from a raw click log to a recommender that answers.

data = nextclick.prepare("clicks.csv", out="data")
model = nextclick.VSKNN(k=500).fit(data.train)
report = nextclick.evaluate([model], data.test)
model.recommend(["a", "b"], k=10)
"""

__version__ = "0.1.0"

from nextclick.artifact import load
from nextclick.baselines import Markov, Popularity, SessionPopularity
from nextclick.dataset import Dataset
from nextclick.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    MissingExtraError,
    NextclickError,
    NotFittedError,
    TrainingDivergedError,
)
from nextclick.evaluation import evaluate
from nextclick.explain import Explanation, explain
from nextclick.factors.bpr_mf import BPRMF
from nextclick.factors.fpmc import FPMC
from nextclick.features import Features, Images, build_features
from nextclick.filters import Filter, ItemTable, Rules
from nextclick.metric.recommender import SML
from nextclick.models import MODELS, build
from nextclick.neighbours.item_knn import ItemKNN
from nextclick.neighbours.session_knn import SKNN, STAN, VMISKNN, VSKNN
from nextclick.network.gru4rec import GRU4Rec, GRU4RecPlus
from nextclick.network.narm import NARM
from nextclick.network.stamp import STAMP
from nextclick.parallel.prnn import PRNN
from nextclick.prepare import prepare
from nextclick.recommendations import Recommendation, Recommendations
from nextclick.recommender import Recommender, Run
from nextclick.rerank.blend import Blend
from nextclick.rerank.rrcre import RRCRE
from nextclick.results import Report
from nextclick.sessions import Queries, Sessions, Vocabulary
from nextclick.tuning import tune

__all__ = [
    "BPRMF",
    "FPMC",
    "MODELS",
    "NARM",
    "PRNN",
    "RRCRE",
    "SKNN",
    "SML",
    "STAMP",
    "STAN",
    "VMISKNN",
    "VSKNN",
    "ArtifactError",
    "Blend",
    "ConfigError",
    "DataError",
    "Dataset",
    "Explanation",
    "Features",
    "Filter",
    "GRU4Rec",
    "GRU4RecPlus",
    "Images",
    "ItemKNN",
    "ItemTable",
    "Markov",
    "MissingExtraError",
    "NextclickError",
    "NotFittedError",
    "Popularity",
    "Queries",
    "Recommendation",
    "Recommendations",
    "Recommender",
    "Report",
    "Rules",
    "Run",
    "SessionPopularity",
    "Sessions",
    "TrainingDivergedError",
    "Vocabulary",
    "__version__",
    "build",
    "build_features",
    "evaluate",
    "explain",
    "load",
    "prepare",
    "tune",
]
