"""Pictures of training, labels, thresholds and single predictions, as scikit-learn's Display classes.

matplotlib is imported when something is plotted.
"""

from .attribution import TokenAttributionDisplay
from .history import TrainingHistoryDisplay
from .similarity import LabelSimilarityDisplay
from .thresholds import ThresholdCurveDisplay

__all__ = ["LabelSimilarityDisplay", "ThresholdCurveDisplay", "TokenAttributionDisplay", "TrainingHistoryDisplay"]
