"""Loading of a checkpoint folder as the estimator that saved it."""

from . import persistence
from .classifier import GLiClassClassifier
from .model.lookup import find_checkpoint
from .regressor import GLiClassRegressor

_ESTIMATORS = {cls.__name__: cls for cls in (GLiClassClassifier, GLiClassRegressor)}


def load_estimator(source, labels=None, **hyperparameters):
    """Load a checkpoint as a classifier or a regressor, as `estimator.json` says.

    Parameters
    ----------
    source : str or Path
        Checkpoint folder, or a name on the Hugging Face hub.
    labels : sequence of str, optional
        Labels of a zero-shot classifier. A checkpoint that was saved without `estimator.json` has none of its own.
    **hyperparameters
        Hyperparameters that override the stored ones.

    Returns
    -------
    estimator : GLiClassClassifier or GLiClassRegressor
        The fitted estimator.

    Raises
    ------
    OSError
        If there is no such checkpoint.
    ValueError
        If the checkpoint has no labels and none are given, or a regressor is loaded with labels.
    """
    folder = find_checkpoint(str(source), hyperparameters.get("cache_dir"))

    def load():
        record = persistence.read_estimator(folder)
        cls = _ESTIMATORS.get("" if record is None else record["estimator"], GLiClassClassifier)
        if labels is not None and cls is GLiClassRegressor:
            raise ValueError(f"{str(source)!r} is a regressor, which has no labels; leave the labels out.")
        return cls.from_pretrained(source, **hyperparameters)

    estimator = persistence.read_unchanged(folder, load)
    if labels is not None:
        return estimator.fit(None, list(labels))
    if not estimator.__sklearn_is_fitted__():
        raise ValueError(
            f"{str(source)!r} is a checkpoint without labels: give the labels that it should choose from, for example "
            "--labels sports,politics."
        )
    return estimator
