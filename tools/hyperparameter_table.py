"""Write the documentation's table of hyperparameters: names, defaults, meanings, and when to change them.

Names, defaults and meanings come from the docstrings. ``make hyperparameters`` (or ``python
tools/hyperparameter_table.py``) writes ``docs/hyperparameters.md``; ``tests/test_hyperparameter_table.py`` checks it.
"""

import inspect
import re
from pathlib import Path

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.docstrings import split_entries
from sklearn_gliclass.parameters import MODEL_ORIGIN, MODEL_PARAMETERS
from sklearn_gliclass.training import arguments

PAGE = Path(__file__).parent.parent / "docs" / "hyperparameters.md"
INTRODUCTION = """# Hyperparameters

% Written by `make hyperparameters` from the docstrings.

All are keywords of the estimators, and all can be searched. Most are best left alone: start with `label_names`,
`max_epochs` and `lr`. The [API reference](api/index.rst) has the full descriptions.
"""

GROUPS = {
    "Where `fit` starts": MODEL_ORIGIN,
    "The model": MODEL_PARAMETERS,
    "Training": arguments.FIELDS,
    "Texts, labels and the rest": None,  # entries that are in none of the others
}

# Entry of the docstring -> when to change it.
WHEN_TO_CHANGE = {
    "pretrained": "you have a GLiClass checkpoint, for zero-shot classification or fine-tuning",
    "encoder_model": "texts are not English, very long, or quality matters more than time",
    "encoder_config": "tests and experiments without a download",
    "label_model_name, label_model_config": "labels and texts differ in kind, such as codes and prose",
    "class_token_index, text_token_index": "never; they exist for the configurations of checkpoints",
    "ignore_index": "unknown labels are marked with another value",
    "hidden_size": 'with `projector_init="normal"`: smaller heads for little data',
    "projector_hidden_act": "to reproduce a published configuration",
    "vocab_size": "never; it exists for the configurations of checkpoints",
    "problem_type": "zero-shot multi-label: `fit(None, labels)` has no y to infer it from",
    "max_num_classes": "many classes: lower saves memory, higher contrasts each text with more wrong labels",
    "use_lstm": "word order matters and there are thousands of examples",
    "initializer_range": 'with `projector_init="normal"`, if the loss does not fall',
    "scorer_type": 'in a grid search; "mlp", "hopfield" and "cross-attn" need more data',
    "scorer_num_heads": 'with "cross-attn"',
    "scorer_mlp_hidden_size": 'with "mlp", "hopfield" and "cross-attn": smaller for little data',
    "scorer_attn_dropout": 'with "cross-attn", if it overfits',
    "pooling_strategy": 'another encoder: "first" for those trained by their first token',
    "class_token_pooling": "in a grid search with prompts of long labels",
    "focal_loss_alpha, focal_loss_gamma": "multi-label with rare labels: a higher alpha favours recall",
    "focal_loss_reduction": "to reproduce a published training",
    "logit_scale_init_value": "probabilities are far too certain, or never certain, from the start",
    "normalize_features": "checkpoints without it",
    "extract_text_features": "long prompts beside short texts",
    "contrastive_loss_coef": "labels are confused with each other; see `LabelSimilarityDisplay`",
    "text_contrastive_loss_coef": "in a grid search; 0 saves a little time",
    "architecture_type": 'with GLiClass checkpoints; "uni-encoder" lets labels see the text',
    "prompt_first": "checkpoints trained this way",
    "squeeze_layers": "frozen or large encoders, whose lower layers hold information too",
    "layer_wise": "you will remove upper layers of the encoder afterwards",
    "encoder_layer_id": "a lower layer fits the task better",
    "embed_class_token": "checkpoints trained this way",
    "dropout": "overfitting: higher; many examples: lower",
    "tie_encoders": "False: labels and texts differ in kind",
    "projector_init": 'with GLiClass pretraining of your own: "normal"',
    "use_segment_embeddings": "GLiClass pretraining of your own with several segments",
    "scorer_encoder_num_layers": 'with "decoder-kv": 1 for little data',
    "recurrent_steps": 'with "decoder-kv" and thousands of examples',
    "recurrent_read_text": "with `recurrent_steps`, if labels depend on details of the text",
    "long_texts": '"max": a passage of long texts decides; "truncate": time matters more',
    "window_overlap": "sentences at the edges of windows matter",
    "unknown_label": "texts may belong to none of the classes",
    "unknown_threshold": "a wrong class costs more than no answer: higher",
    "lr": "the first one to search, between 2e-5 and 2e-4; with large encoders lower",
    "others_lr": "scorers that start from random weights: higher",
    "weight_decay, others_weight_decay": "rarely",
    "optim": 'little memory: "adafactor", "sgd"',
    "max_epochs": "fewer for speed, 0 for zero-shot evaluation",
    "batch_size": "little memory: lower; GPUs: higher, with a higher `lr`",
    "gradient_accumulation_steps": "a larger batch than memory holds",
    "lr_scheduler_type": 'single epochs on a stream: "constant"',
    "warmup_ratio": "the loss jumps at the start: higher",
    "max_grad_norm": "the loss jumps: lower",
    "ewc_lambda": "`partial_fit` on data that differ from earlier data, which the model should not forget",
    "cache_dir": "the Hugging Face cache is on a full disk",
    "max_length": "long texts: higher reads more, lower is faster",
    "label_names": "the classes are codes or numbers: the model reads these names",
    "label_separator": "several targets whose classes mean little without the name of their target",
    "text_template": "tables: to choose columns and their wording",
    "prompt": "checkpoints and sentence encoders that expect a task description",
    "examples": "checkpoints that were trained with examples; labels that only examples explain",
    "n_examples": "with examples='nearest': more if texts are short",
    "shuffle_labels": "False: the order of labels in a prompt carries meaning",
    "freeze_encoder": "grid search over heads in seconds; laptops; the encoder knows the domain already",
    "lora_rank": "large encoders whose gradients and optimiser state do not fit into memory: 8 or 16",
    "lora_alpha": "rarely",
    "lora_target": 'fewer adapters: attention only, such as `["query", "value"]`',
    "memory": "you fit or predict the same texts again, in a search or on another day",
    "shrinkage": '1 halves the time of a fit on few rows; keep "auto" for noisy values',
    "early_stopping": "many epochs, and enough rows for a validation set",
    "validation_fraction": "with `early_stopping` and few rows: higher",
    "n_iter_no_change": "with `early_stopping` and a noisy validation loss: higher",
    "warm_start": "more rows of the same kind arrive",
    "callbacks": "to monitor, stop or checkpoint a training with skorch",
    "device": "to keep a GPU free",
    "dtype": '"bfloat16" on GPUs and CPUs that have it: faster; "float64" for comparisons',
    "max_batch_tokens": "GPUs: higher; little memory: lower",
    "preset": 'little time: "fast"; accuracy above all: "accurate"',
    "verbose": "in notebooks",
    "random_state": "always, for reproducible results",
    "class_weight": "rare classes that matter",
    "label_centroid_share": "label names that say little about the classes: higher",
    "calibrate": 'probabilities decide or are compared: "cv"',
    "threshold": "multi-label; choose with `ThresholdCurveDisplay`",
    "rl": "an objective that is not differentiable; in `benchmarks/rl.py` it did not raise F1",
    "reward_components": "with `rl`, for another objective than F1",
    "value_model": "with `rl`, if rewards differ much from text to text",
    "reference_model": "with `rl` and few texts: keeps the model close to a good one",
}


def docstring_entries(estimator) -> dict[str, str]:
    """Read the section Parameters: names of each entry, and its first paragraph in one line."""
    section = inspect.getdoc(estimator).split("Parameters\n----------\n")[1].split("\n\nAttributes\n")[0]
    paragraphs = {names: text.split("\n\n")[0] for names, text in split_entries(section).items()}
    return {names: " ".join(line.strip() for line in text.splitlines()[1:]) for names, text in paragraphs.items()}


def page() -> str:
    """Build the page of the documentation, with a table for each group."""
    classifier, regressor = map(docstring_entries, (GLiClassClassifier, GLiClassRegressor))
    entries = classifier | regressor | classifier  # in this order; where defaults differ, the classifier's entry
    missing, extra = sorted(set(entries) - set(WHEN_TO_CHANGE)), sorted(set(WHEN_TO_CHANGE) - set(entries))
    if missing or extra:
        raise SystemExit(
            f"WHEN_TO_CHANGE in tools/hyperparameter_table.py has no line for {missing} and superfluous ones for "
            f"{extra}; it says for each entry of the docstring when to change the value."
        )
    lines = [INTRODUCTION]
    for title, members in GROUPS.items():
        lines += [f"## {title}", "", "| name | default | meaning | when to change it |", "| --- | --- | --- | --- |"]
        lines += [row(names, text) for names, text in entries.items() if group_of(names) == (title, members)]
        lines.append("")
    return "\n".join(lines)


def group_of(names: str):
    first = names.split(", ")[0]
    return next((title, members) for title, members in GROUPS.items() if members is None or first in members)


def row(names: str, text: str) -> str:
    names = names.split(", ")
    classifier, regressor = (inspect.signature(e).parameters for e in (GLiClassClassifier, GLiClassRegressor))
    defaults = dict.fromkeys(f"`{(classifier | regressor)[name].default!r}`" for name in names)
    note = ""
    if names[0] not in regressor:
        note = " (classifier only)"
    elif names[0] not in classifier:
        note = " (regressor only)"
    elif classifier[names[0]].default != regressor[names[0]].default:
        defaults = [f"`{classifier[names[0]].default!r}`, regressor `{regressor[names[0]].default!r}`"]
    cells = (
        ", ".join(f"`{name}`" for name in names) + note, ", ".join(defaults), markdown(text),
        WHEN_TO_CHANGE[", ".join(names)],
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown(text: str) -> str:
    """Convert the reStructuredText of a docstring to Markdown.

    Examples
    --------
    >>> markdown("See :class:`RLTrainer` and ``a < b``.")
    'See `RLTrainer` and `a < b`.'
    """
    return re.sub(r":\w+:(?=`)", "", text).replace("``", "`").replace("`~", "`")


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
