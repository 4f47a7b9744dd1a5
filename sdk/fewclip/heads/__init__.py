"""Linear heads on frozen features and their weight against the text. NumPy and SciPy; no torch.

`sample` is what they are fitted on, `gda` and `logistic` fit a head, `folds` evaluates one on
images it has not seen, `mixture` weighs text and heads against each other by `fold_outputs`,
`stacking` ties it together.
"""

from fewclip.heads.augmented import head_features
from fewclip.heads.fold_outputs import FoldOutputs, folds_from_arrays, folds_to_arrays
from fewclip.heads.folds import assign_folds, out_of_fold
from fewclip.heads.gda import fit_gda, fit_gda_heads
from fewclip.heads.linear import Head
from fewclip.heads.logistic import choose_strength, fit_logistic
from fewclip.heads.loss import log_loss
from fewclip.heads.mixture import Mixture, fit_mixture
from fewclip.heads.sample import AnyMatrix, FeatureSample, Rows, SampleBuilder
from fewclip.heads.stacking import (
    FittedHead,
    fit_on_folds,
    fit_stacked,
    fit_to_views,
    fold_count,
)

__all__ = [
    "AnyMatrix",
    "FeatureSample",
    "FittedHead",
    "FoldOutputs",
    "Head",
    "Mixture",
    "Rows",
    "SampleBuilder",
    "assign_folds",
    "choose_strength",
    "fit_gda",
    "fit_gda_heads",
    "fit_logistic",
    "fit_mixture",
    "fit_on_folds",
    "fit_stacked",
    "fit_to_views",
    "fold_count",
    "folds_from_arrays",
    "folds_to_arrays",
    "head_features",
    "log_loss",
    "out_of_fold",
]
