"""Types in the signatures of public methods."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

Texts: TypeAlias = Any  # 1-D texts or a table, in any container of inputs.py
Targets: TypeAlias = Any  # classes, indicators, lists of labels, probabilities or numbers, in any container
Weights: TypeAlias = ArrayLike | None
Method = TypeVar("Method", bound=Callable[..., Any])
Array: TypeAlias = np.ndarray[Any, Any]
ArrayOrList: TypeAlias = Any  # an array, or with several targets a list with one for each
ProblemType: TypeAlias = Literal["single_label_classification", "multi_label_classification", "regression"]
