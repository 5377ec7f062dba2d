"""Export of fitted estimators to ONNX: graphs, tokenizers and settings, with a check that the predictions are equal."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import os
import reprlib
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from sklearn.base import is_regressor

from . import json_values
from .abstention import resolve_unknown_threshold
from .class_values import read_thresholds
from .data.label_groups import LabelGroups
from .fitted import engine_options
from .inference import InferenceEngine
from .model.folders import replace_folder
from .model.isolation import process_lock
from .model.onnx_graphs import Graph, build_graphs
from .model.packed import disable_packing
from .model.torch_internals import place, unwrap
from .onnx import (
    LABEL_EMBEDDINGS_FILE,
    LABEL_TOKENIZER_FILE,
    MULTI_LABEL,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    OnnxModel,
    Settings,
    compute_sigmoid,
    compute_softmax,
    read_settings,
    write_settings,
)
from .optional_dependencies import import_optional

TOLERANCE = 1e-4  # in probability, or in standardised values of a regressor
OPSET = 17
WEIGHTS_FILE = "weights.bin"
SAMPLE_WORDS = "the first goal of a late match and what they said on it today in 2024 , more or less ?"
_SHARED_BYTES = 1024  # smaller weights are stored in the graph
_ALIGNMENT = 64  # bytes
_SETTINGS_FROM_CONFIG = (
    "architecture_type", "prompt_first", "class_token_pooling", "embed_class_token", "extract_text_features",
    "class_token_index", "text_token_index",
)  # fmt: skip
_RECORDED_VERSIONS = ("torch", "transformers", "onnx", "onnxruntime")


def export_estimator(estimator, folder, quantize: bool = False) -> float:
    """Write a fitted estimator to a folder in ONNX; see :meth:`PersistenceMixin.export_onnx`."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"export_onnx takes the name of a folder, a str or Path, got {folder!r}.")
    if not isinstance(quantize, (bool, np.bool_)):
        raise TypeError(f"quantize must be True or False, got {quantize!r}.")
    _check_is_traced(estimator.config_)
    fitted_attributes = _describe_fitted(estimator)
    _check_reads_texts(estimator)
    _check_has_no_instructions(estimator)
    for name in ("onnx", "onnxruntime"):
        import_optional(name, "onnx", "export_onnx")
    settings = _describe_model(estimator)
    model = place(copy.deepcopy(unwrap(estimator.model_)), "cpu", torch.float32)
    engine = InferenceEngine(
        model, estimator.fitted_.layout(), settings.labels_at_once, settings.max_batch_tokens, "float32",
        long_texts=settings.long_texts, window_overlap=settings.window_overlap, label_fit=estimator.fitted_.label_fit,
    )  # fmt: skip
    texts = sample_texts(settings)
    expected = engine.logits(texts)
    embeddings = _remove_label_fit(engine)
    with replace_folder(Path(folder).expanduser().resolve(), _is_export_file) as temporary:
        _write_tokenizers(estimator, temporary)
        with tempfile.TemporaryDirectory() as scratch:
            trace_graphs(build_graphs(model.model), model.config, Path(scratch))
            _write_model(Path(scratch), temporary, settings, fitted_attributes, embeddings)
            difference = _measure_difference(temporary, texts, expected)
            if not difference <= TOLERANCE:  # NaN too
                raise ValueError(
                    f"The exported model differs from the estimator by {difference:.2g} in {_unit(settings)}, and at "
                    f"most {TOLERANCE} is allowed. Nothing was written. Update torch and onnxruntime, or report the "
                    "model's hyperparameters."
                )
            if quantize:
                _quantize_graphs(Path(scratch))
                settings.quantized = True
                _write_model(Path(scratch), temporary, settings, fitted_attributes, embeddings)
                difference = _measure_difference(temporary, texts, expected)
    return difference


@torch.no_grad()
def _remove_label_fit(engine: InferenceEngine) -> np.ndarray | None:
    """Return label embeddings if the projector was fitted to labels, and remove the fit: graphs read other labels."""
    if engine.label_fit is None:
        return None
    embeddings = engine.label_embeddings().numpy()
    engine.model.model.classes_projector.linear_2.weight -= engine.label_fit.change
    return embeddings


def _is_export_file(name: str) -> bool:
    return name.endswith(".onnx") or name in {
        SETTINGS_FILE, TOKENIZER_FILE, LABEL_TOKENIZER_FILE, LABEL_EMBEDDINGS_FILE, WEIGHTS_FILE
    }  # fmt: skip


# -- settings ----------------------------------------------------------------------------------------------------


def _check_is_traced(config) -> None:
    """Raise for models without graphs for the export."""
    if config.architecture_type in ("encoder-decoder-cls", "decoder-kv"):
        raise ValueError(
            f"export_onnx cannot export architecture_type={config.architecture_type!r}; predict with torch, or choose "
            "another architecture."
        )
    if config.use_calibrator:
        raise ValueError(
            "export_onnx cannot export a calibrator (use_calibrator=True); load the checkpoint with calibrate=False, "
            "or set normalize_features=True for a temperature that the logit scale holds."
        )


def _check_reads_texts(estimator) -> None:
    """Raise if the estimator was fitted on a table, whose rows the exported model cannot convert to texts."""
    reader = estimator._text_reader
    if estimator.text_template is None and (reader.n_columns is None or reader.is_plain):
        return
    what = "has a text_template" if estimator.text_template else f"was fitted on a table of {reader.n_columns} columns"
    raise ValueError(
        f"The estimator {what}, and exported models read 1-D texts only; convert the rows to texts before fit, and "
        "export the estimator that was fitted on them."
    )


def _check_has_no_instructions(estimator) -> None:
    prefix = estimator.config_.text_prefix or estimator.config_.label_prefix
    if prefix:
        raise ValueError(
            f"The encoder has the default prompt {prefix!r}, and exported models read texts and labels only; fit with "
            f"pooling_strategy={estimator.config_.pooling_strategy!r} in place of 'auto', and export that estimator."
        )
    for name in ("prompt", "examples"):
        if getattr(estimator, name, None):
            raise ValueError(
                f"The estimator has {name}={reprlib.repr(getattr(estimator, name))}, and exported models read texts "
                f"and labels only; fit it with {name}=None, and export that estimator."
            )


def _describe_fitted(estimator) -> dict:
    """Return the fitted attributes that convert logits to predictions."""
    if is_regressor(estimator):
        return {
            "target_names": list(estimator.target_names_),
            "factor": estimator.shrinkage_ * estimator.target_scale_,
            "offset": estimator.target_mean_,
            "one_dimensional": estimator._one_dimensional,
        }
    classes, problem_type = estimator.classes_, estimator.config_.problem_type
    try:
        json_values.encode(classes)
    except TypeError as error:
        raise ValueError(
            f"The classes cannot be stored: {error}. Use classes that are strings, numbers, bools or bytes."
        ) from None
    if estimator._has_several_targets:
        return {
            "classes": classes,
            "problem_type": problem_type,
            "threshold": np.array(0.5),
            "target_names": estimator.target_names_,
            "temperature": estimator.temperature_,
        }
    threshold = read_thresholds(estimator.threshold, classes) if problem_type == MULTI_LABEL else np.array(0.5)
    return {"classes": classes, "problem_type": problem_type, "threshold": threshold, **_describe_unknown(estimator)}


def _describe_unknown(estimator) -> dict:
    """Return what `known_proba` and `unknown_label` need."""
    estimator._check_decisions(estimator.config_.problem_type, estimator.classes_)
    return {
        "logit_scale": estimator.model_.model.logit_factor,
        "evidence": asdict(estimator._known_evidence()),
        "unknown_label": estimator.unknown_label,
        "unknown_threshold": resolve_unknown_threshold(estimator.unknown_threshold),
    }


def _describe_model(estimator) -> Settings:
    options, fitted = engine_options(estimator), estimator.fitted_
    labels_at_once = fitted.labels_per_prompt(options.get("max_num_classes"))
    shares_tokenizer = fitted.label_tokenizer is None or fitted.label_tokenizer is fitted.tokenizer
    return Settings(
        estimator="regressor" if is_regressor(estimator) else "classifier",
        **{name: getattr(fitted.config, name) for name in _SETTINGS_FROM_CONFIG},
        special_ids=_special_ids(fitted.tokenizer),
        label_special_ids=None if shares_tokenizer else _special_ids(fitted.label_tokenizer),
        label_names=[str(name) for name in fitted.label_names],
        max_length=int(fitted.max_length),
        labels_at_once=None if labels_at_once is None else int(labels_at_once),
        max_batch_tokens=int(options["max_batch_tokens"]),
        quantized=False,
        versions={name: importlib.metadata.version(name) for name in _RECORDED_VERSIONS},
        long_texts=options["long_texts"],
        window_overlap=int(options["window_overlap"]),
    )


def _special_ids(tokenizer) -> dict:
    return {"pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id}


def _write_tokenizers(estimator, folder: Path) -> None:
    fitted = estimator.fitted_
    fitted.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    if fitted.label_tokenizer is not None and fitted.label_tokenizer is not fitted.tokenizer:
        fitted.label_tokenizer.backend_tokenizer.save(str(folder / LABEL_TOKENIZER_FILE))


# -- graphs ------------------------------------------------------------------------------------------------------

# Sizes of the traced batch: different from each other, and none is 1, which would be broadcast.
_SIZES = {"batch": 3, "length": 14, "labels": 5, "label_length": 7, "prompt_length": 11}


def trace_graphs(graphs: dict[str, Graph], config, folder: Path) -> None:
    """Write the graphs of a model as ``{name}.onnx``.

    Parameters
    ----------
    graphs : dict of str to Graph
        The graphs.
    config : GLiClassModelConfig
        Configuration of the model.
    folder : Path
        Folder of the files.
    """
    for name, graph in graphs.items():
        axes = {**graph.inputs, **graph.outputs}
        with process_lock(), torch.no_grad(), disable_packing(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that depend on values, which the check would find
            torch.onnx.export(
                graph.module.eval(),
                tuple(_trace_input(config, *item) for item in graph.inputs.items()),
                str(folder / f"{name}.onnx"),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_axes={tensor: dict(enumerate(names)) for tensor, names in axes.items()},
                opset_version=OPSET,
                dynamo=False,  # the tracer exports LSTMs of any length, in a tenth of the time, without onnxscript
            )


def _trace_input(config, name: str, axes: tuple[str, ...]) -> torch.Tensor:
    """Return an example of an input of a graph."""
    shape = tuple(_SIZES[axis] for axis in axes)
    if name.endswith("input_ids"):
        return torch.arange(shape[0] * shape[1]).view(shape) % config.vocab_size
    if name.endswith("mask"):
        return torch.ones(shape, dtype=torch.long).index_fill_(1, torch.arange(shape[1] - 3, shape[1]), 0)
    if name == "label_weights":
        return torch.eye(shape[1], shape[2]).expand(shape).contiguous()
    return torch.linspace(-1, 1, int(np.prod(shape)) * config.encoder_width).view(*shape, -1)


def _write_model(source: Path, target: Path, settings: Settings, fitted: dict, embeddings: np.ndarray | None) -> None:
    """Write the graphs, their weights in one file, in which equal ones are stored once, settings and label embeddings.

    The label embeddings are computed by the graphs if they are not given.
    """
    import onnx

    places, data, digest = {}, bytearray(), hashlib.sha256()
    for path in sorted(source.glob("*.onnx")):
        graph = onnx.load(path)
        for weight in graph.graph.initializer:
            _move_weight(weight, places, data)
        content = graph.SerializeToString()
        digest.update(content)
        (target / path.name).write_bytes(content)
    digest.update(data)
    (target / WEIGHTS_FILE).write_bytes(data)
    settings.graphs_sha256 = digest.hexdigest()
    write_settings(settings, fitted, target)
    if (target / "labels.onnx").is_file():
        (target / LABEL_EMBEDDINGS_FILE).unlink(missing_ok=True)
        if embeddings is None:
            embeddings = OnnxModel(target, settings).embed_labels()
        np.save(target / LABEL_EMBEDDINGS_FILE, embeddings, allow_pickle=False)


def _move_weight(weight, places: dict, data: bytearray) -> None:
    """Move a weight of a graph to `data`, unless it is small; `places` has the offset of each content."""
    import onnx

    content = onnx.numpy_helper.to_array(weight).tobytes()
    if len(content) < _SHARED_BYTES:
        return
    key = hashlib.sha256(content).digest()
    if key not in places:
        data.extend(bytes(-len(data) % _ALIGNMENT))
        places[key] = len(data)
        data.extend(content)
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        weight.ClearField(field)
    weight.data_location = onnx.TensorProto.EXTERNAL
    del weight.external_data[:]
    for name, value in (("location", WEIGHTS_FILE), ("offset", places[key]), ("length", len(content))):
        weight.external_data.add(key=name, value=str(value))


def _quantize_graphs(folder: Path) -> None:
    """Quantise the weights of the encoders to 8 bits, in place; activations are quantised in each call."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for path in folder.glob("*.onnx"):
        if path.stem == "scorer":
            continue
        graph = onnx.load(path)
        # It logs a hint to preprocess the graph otherwise.
        graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        heads = [node.name for node in graph.graph.node if not _is_of_encoder(node.name)]
        # uint8, as products with int8 overflow on x86 processors without VNNI; one scale per output channel.
        quantize_dynamic(
            graph, path, per_channel=True, reduce_range=False, weight_type=QuantType.QUInt8, nodes_to_exclude=heads
        )


def _is_of_encoder(node: str) -> bool:
    return any(part in node for part in ("encoder_model/", "label_encoder/", "encoder_decoder_model/"))


# -- check -------------------------------------------------------------------------------------------------------


def sample_texts(settings: Settings) -> list[str]:
    """Return texts of different lengths for the check, with an empty one and one that is truncated."""
    words = SAMPLE_WORDS.split()
    words += [word for name in settings.label_names[:20] for word in name.split()]
    texts = [" ".join((words * length)[:length]) for length in (1, 2, 3, 5, 8, 13, 21, 34)]
    longest = " ".join(words * (min(settings.max_length, 512) // len(words) + 1))
    return ["", *texts, *settings.label_names[:20], longest]


def _measure_difference(folder: Path, texts: list[str], expected: np.ndarray) -> float:
    """Return the largest difference between exported model and estimator, whose logits are `expected`."""
    settings, fitted = read_settings(folder)
    logits, _ = OnnxModel(folder, settings).logits(texts)
    if settings.estimator == "classifier":
        convert = compute_sigmoid if fitted["problem_type"] == MULTI_LABEL else compute_softmax
        if isinstance(fitted["classes"], list):
            groups = LabelGroups([len(classes) for classes in fitted["classes"]])
            temperatures = fitted["temperature"][groups.target_of_label]
            parts = zip(groups.split(logits / temperatures), groups.split(expected / temperatures), strict=True)
            return max(float(np.abs(convert(part) - convert(other)).max()) for part, other in parts)
        logits, expected = convert(logits), convert(expected)
    return float(np.abs(logits - expected).max())


def _unit(settings: Settings) -> str:
    return "probability" if settings.estimator == "classifier" else "standardised values"
