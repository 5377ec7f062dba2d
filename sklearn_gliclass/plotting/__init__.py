"""Display classes in the manner of scikit-learn: training curves, label similarities, thresholds, attributions.

matplotlib is imported at the first plot.
"""

from .attribution import TokenAttributionDisplay
from .history import TrainingHistoryDisplay
from .similarity import LabelSimilarityDisplay
from .thresholds import ThresholdCurveDisplay

__all__ = ["LabelSimilarityDisplay", "ThresholdCurveDisplay", "TokenAttributionDisplay", "TrainingHistoryDisplay"]
