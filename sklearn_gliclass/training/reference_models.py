"""Predictions of reference and value models, computed once before reinforcement learning."""

from collections.abc import Sequence

import numpy as np

from ..fitted import FittedModel, engine_options
from ..in_context import fitted_instructions
from ..model.loading import resolve_max_length
from ..targets import MULTI, PROBLEM_TYPES, SINGLE, logits_to_probabilities

_KINDS = {PROBLEM_TYPES[SINGLE]: SINGLE, PROBLEM_TYPES[MULTI]: MULTI}


def compute_reference_probabilities(reference, texts: Sequence[str] | None, labels: Sequence[str], problem_type: str):
    """Compute the probabilities (n_texts, n_labels) of a reference model.

    Parameters
    ----------
    reference : fitted GLiClassClassifier, (GLiClassModel, tokenizer[, label tokenizer]) or callable
        The reference model. A classifier must have the same label texts and problem type.
    texts, labels : sequence of str
        Texts and label texts.
    problem_type : str
        Problem type of the trained model.
    """
    from ..model import GLiClassModel  # imports the models of transformers, which takes long

    texts = _check_texts(texts, "reference_model")
    if isinstance(reference, (tuple, list)):
        if len(reference) not in (2, 3) or not isinstance(reference[0], GLiClassModel):
            raise TypeError(
                "reference_model must be (GLiClassModel, tokenizer) or (GLiClassModel, tokenizer, label tokenizer), "
                f"got ({', '.join(type(part).__name__ for part in reference)})."
            )
        probabilities = logits_to_probabilities(_pair_logits(*reference, texts, labels), _KINDS[problem_type])
    elif hasattr(reference, "predict_proba"):
        probabilities = _classifier_probabilities(reference, texts, labels, problem_type)
    elif isinstance(reference, GLiClassModel):
        raise TypeError(
            "reference_model is a GLiClassModel, which cannot read texts without a tokenizer; give the pair "
            "(model, tokenizer)."
        )
    else:
        probabilities = np.asarray(reference(list(texts), list(labels)), dtype=np.float64)
    if probabilities.shape != (len(texts), len(labels)):
        raise ValueError(
            f"reference_model returned the shape {probabilities.shape} for {len(texts)} texts and {len(labels)} "
            f"labels; it must return probabilities of shape ({len(texts)}, {len(labels)})."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("reference_model returned values that are not probabilities: they must lie in [0, 1].")
    return probabilities


def compute_expected_rewards(value_model, texts: Sequence[str] | None) -> np.ndarray:
    """Compute the expected reward (n_texts,) of each text with a fitted regressor or a callable."""
    texts = list(_check_texts(texts, "value_model"))
    values = value_model.predict(texts) if hasattr(value_model, "predict") else value_model(texts)
    values = np.asarray(values, dtype=np.float64)
    if values.size != len(texts) or not np.isfinite(values).all():
        raise ValueError(
            f"value_model returned the shape {values.shape} for {len(texts)} texts, or values that are not finite; it "
            "must return one finite number for each text."
        )
    return values.reshape(-1)


def _check_texts(texts, name: str):
    if texts is None:
        raise ValueError(f"{name} takes texts, and this TextDataset has none; pass texts=... to it.")
    return texts


def _pair_logits(model, tokenizer, *rest) -> np.ndarray:
    *label_tokenizer, texts, labels = rest
    max_length = resolve_max_length(None, model.config.encoder_config, tokenizer)
    label_tokenizer = label_tokenizer[0] if label_tokenizer else None
    return FittedModel(model, tokenizer, label_tokenizer, list(labels), max_length).engine().logits(texts)


def _classifier_probabilities(reference, texts, labels, problem_type) -> np.ndarray:
    known = getattr(reference, "label_names_", None)
    if known is None:
        raise TypeError(
            f"reference_model is a {type(reference).__name__} that is not a fitted GLiClassClassifier; fit it, or give "
            "a callable: lambda texts, labels: probabilities of shape (n_texts, n_labels)."
        )
    if reference.config_.problem_type != problem_type:
        raise ValueError(
            f"reference_model was trained for {reference.config_.problem_type!r}, and this y is {problem_type!r}; give "
            "a reference for the same type of y."
        )
    missing = [label for label in labels if label not in known]
    if missing:
        raise ValueError(f"reference_model does not have the label(s) {missing[:5]!r}; it has {list(known)[:10]!r}.")
    # Its engine instead of predict_proba, as the texts may be converted rows of a table.
    logits = reference.fitted_.engine(**engine_options(reference), instructions=fitted_instructions(reference)).logits(
        texts
    )
    return logits_to_probabilities(logits, _KINDS[problem_type])[:, [known.index(label) for label in labels]]
