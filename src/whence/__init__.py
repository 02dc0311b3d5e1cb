"""Which training data made the model do this?

Nothing is imported before it is asked for: `import whence` takes milliseconds, and the first use of
`whence.from_torch` is what imports torch. A public name is a line of `_NAMES` and a line of the
reference; `make stub` then writes `__init__.pyi`, from which type checkers and editors read.
"""

from __future__ import annotations

from importlib import import_module

from whence.version import __version__

_NAMES = {
    "BM25": "whence.methods.lexical",
    "CG": "whence.linalg.cg",
    "EKFAC": "whence.curvature.kronecker",
    "KNNShapley": "whence.methods.knn_shapley",
    "KFAC": "whence.curvature.kronecker",
    "Attribution": "whence.methods.attribution",
    "BoostIn": "whence.methods.boostin",
    "Boosting": "whence.methods.boosting",
    "Cholesky": "whence.linalg.cholesky",
    "Composition": "whence.methods.composition",
    "CrossEntropy": "whence.objective.losses",
    "DataOOB": "whence.methods.data_oob",
    "Diagnostics": "whence.scores",
    "ForestWeights": "whence.methods.forest",
    "Examples": "whence.objective.trained",
    "HiddenCosine": "whence.methods.hidden",
    "Index": "whence.index.index",
    "Influence": "whence.methods.influence",
    "LeafKernel": "whence.methods.leaf_kernel",
    "LeaveOneOut": "whence.methods.leave_one_out",
    "LiSSA": "whence.linalg.lissa",
    "Logistic": "whence.objective.losses",
    "Metagradient": "whence.methods.metagradient",
    "Method": "whence.methods.method",
    "Projected": "whence.methods.projected",
    "Recipe": "whence.training.recipe",
    "Run": "whence.training.run",
    "Representer": "whence.methods.representer",
    "Retrained": "whence.methods.ensemble",
    "Scores": "whence.scores",
    "Semivalue": "whence.methods.semivalues",
    "SmoothHinge": "whence.objective.losses",
    "SquaredError": "whence.objective.losses",
    "SquaredHinge": "whence.objective.losses",
    "SavedCurvature": "whence.index.saved",
    "Stored": "whence.index.stored",
    "TfIdfCosine": "whence.methods.lexical",
    "TracIn": "whence.methods.tracin",
    "Trained": "whence.objective.trained",
    "Tweedie": "whence.objective.losses",
    "Unrolled": "whence.methods.unrolled",
    "average": "whence.scores",
    "compare_influence": "whence.applications.comparison",
    "diagnose": "whence.applications.diagnose",
    "domain_mismatch": "whence.applications.domain_mismatch",
    "edit": "whence.methods.changes",
    "error_bound": "whence.methods.error_bound",
    "evaluate": "whence.applications.evaluate",
    "explain": "whence.applications.explain",
    "explore": "whence.explorer.explore",
    "find_label_errors": "whence.applications.label_errors",
    "flip_set": "whence.applications.flip_set",
    "from_frozen": "whence.adapters.frozen",
    "from_lifelines": "whence.adapters.survival",
    "from_sklearn": "whence.adapters.sklearn",
    "from_statsmodels": "whence.adapters.statsmodels",
    "from_torch": "whence.adapters.torch",
    "from_transformers": "whence.adapters.transformers",
    "group_effect": "whence.methods.changes",
    "influence": "whence.methods.scoring",
    "influence_by_token": "whence.methods.tokens",
    "influence_on_parameters": "whence.methods.parameters",
    "leave_one_out": "whence.methods.leave_one_out",
    "metagradient": "whence.methods.metagradient",
    "metasmoothness": "whence.training.metasmoothness",
    "perturbation": "whence.methods.changes",
    "projected": "whence.methods.projected",
    "regression_diagnostics": "whence.applications.regression",
    "removal_curve": "whence.applications.removals",
    "report": "whence.applications.report",
    "report_evaluation": "whence.applications.evaluate",
    "representer": "whence.methods.representer",
    "retrain": "whence.training.replay",
    "select": "whence.index.selection",
    "self_influence": "whence.methods.influence",
    "spectrum": "whence.applications.diagnose",
    "stability": "whence.applications.stability",
    "tracin": "whence.methods.tracin",
    "train": "whence.training.train",
    "trainer_callback": "whence.training.trainer",
    "lightning_callback": "whence.training.lightning",
    "unrolled": "whence.methods.unrolled",
}
_MODULES = {
    "attacks": "whence.applications.attacks",
    "errors": "whence.errors",
    "measures": "whence.objective.sets.measures",
    "evaluation": "whence.evaluation",
    "linalg": "whence.linalg",
    "plot": "whence.applications.plot",
}
__all__ = ["__version__", *sorted({**_NAMES, **_MODULES})]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name in _MODULES:
        value: object = import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    else:
        from whence.errors import closest

        near = None if name.startswith("_") else closest(name, __all__)
        meant = f". Did you mean whence.{near}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return __all__
