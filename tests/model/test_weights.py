"""Validation of the weights of a folder: all of them, with the right shapes, and no others."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.utils.prune
from lora_linear import LoraLinear
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURE_FAMILIES, tiny_config, tiny_encoder, tiny_model
from transformers import AutoConfig, AutoModel, BertForMaskedLM

from sklearn_gliclass.model import GLiClassModel, GLiClassModelConfig
from sklearn_gliclass.model.isolation import process_lock
from sklearn_gliclass.model.loading import build_encoder, load_encoder
from sklearn_gliclass.model.weights import has_one_name_of_ties, named_weights, read_weights, skeleton
from sklearn_gliclass.persistence import load_model, read_config
from sklearn_gliclass.testing import TINY_BERT

QUERY = "model.encoder_model.encoder.layer.0.attention.self.query.weight"


def changed(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    return folder


def changed_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def folder(tmp_path):
    tiny_model("uni-encoder").save_pretrained(tmp_path)
    return tmp_path


LOADERS = [load_model, GLiClassModel.from_pretrained]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(QUERY), rf"1 missing \({QUERY}\)"),
        (lambda weights: weights.pop("model.logit_scale"), r"1 missing \(model\.logit_scale\)"),
        (
            lambda weights: [weights.pop(name) for name in list(weights)[:30]],
            r"\d+ missing \(model\.(\S+, ){5}\.\.\.\)",
        ),
        (lambda weights: weights.update({"model.other": torch.ones(1)}), r"1 unexpected \(model\.other\)"),
        (
            lambda weights: weights.update({QUERY: weights[QUERY][:, :3].contiguous()}),
            rf"1 of another shape \({QUERY}: \(32, 3\) in place of \(32, 32\)\)",
        ),
    ],
    ids=["an encoder weight", "the scale", "many", "one more", "another shape"],
)
def test_weights_that_contradict_the_configuration_raise(folder, load, change, message):
    with pytest.raises(ValueError, match=f"{message}.*download or save the checkpoint again"):
        load(changed(folder, change))


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    "change",
    [
        {"scorer_type": "mlp"}, {"use_lstm": True}, {"squeeze_layers": True}, {"hidden_size": 48},
        {"encoder": {"num_hidden_layers": 1}}, {"encoder": {"num_hidden_layers": 3}}, {"encoder": {"hidden_size": 16}},
        {"encoder": {"model_type": "deberta-v2"}}, {"encoder": {"vocab_size": 50}},
    ],
    ids=str,
)  # fmt: skip
def test_edited_configuration_raises(folder, load, change):
    change = dict(change)

    def edit(config):
        config["encoder_config"].update(change.pop("encoder", {}))
        if "vocab_size" in config["encoder_config"]:
            config.pop("vocab_size", None)
        config.update(change)

    with pytest.raises(ValueError, match=r"does not hold the weights that its config\.json describes"):
        load(changed_config(folder, edit))


@pytest.mark.parametrize(("architecture", "family"), ARCHITECTURE_FAMILIES)
def test_tied_weights_may_be_saved_under_one_name(architecture, family, tmp_path):
    options = {"tie_encoders": True} if architecture.startswith("bi-encoder") else {}
    model = tiny_model(architecture, family, **options)
    model.save_pretrained(tmp_path)
    shared = skeleton(type(model), model.config).shared

    def keep_one(weights):
        for names in shared:
            for name in [name for name in names if name in weights][:-1]:
                del weights[name]

    loaded = load_model(changed(tmp_path, keep_one))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    for names in shared:
        parameters = dict(loaded.named_parameters(remove_duplicate=False))
        assert len({id(parameters[name]) for name in names}) == 1


def test_tied_encoders_with_different_weights_raise(tmp_path):
    tiny_model("bi-encoder", tie_encoders=True).save_pretrained(tmp_path)
    name = QUERY.replace("encoder_model", "label_encoder")
    with pytest.raises(ValueError, match="are tied weights in this configuration, but have different values"):
        load_model(changed(tmp_path, lambda weights: weights[name].add_(1)))


def test_pooler_may_be_missing_and_is_always_the_same(folder):
    def drop(weights):
        for name in [name for name in weights if ".pooler." in name]:
            del weights[name]

    changed(folder, drop)
    first, second = load_model(folder), load_model(folder)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


# -- damaged files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_file_is_named(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(OSError, match=r"model\.safetensors' is damaged or incomplete"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
def test_damaged_configuration_is_named(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(OSError, match=r"config\.json' is damaged"):
        read_config(folder)


def test_missing_files_raise_with_their_names(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"holds no weights \(model\.safetensors\)"):
        load_model(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(OSError, match="merge_and_unload"):
        load_model(folder)
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(OSError, match=r"model-00001-of-00001\.safetensors' is missing"):
        load_model(folder)
    for weight_map in ({"a": "../model.safetensors"}, {"a": "/etc/passwd"}, {"a": 3}, {}, []):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(OSError, match="weight_map must name files of the folder"):
            load_model(folder)


def test_sharded_and_pickled_weights_load(folder):
    model = load_model(folder)
    weights = read_weights(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    assert weights.keys() == read_weights(folder).keys()
    load_model(folder)
    for path in folder.glob("model*"):
        path.unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read_weights(folder).items())
    load_model(folder)


def test_pickle_in_place_of_weights_is_not_run(folder):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "evil"),)

    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"pytorch_model\.bin' is damaged"):
        load_model(folder)
    assert not (folder / "evil").exists()


# -- files that change after the load ------------------------------------------------------------------------


@pytest.mark.parametrize("load", LOADERS)
def test_loaded_model_does_not_depend_on_its_file(folder, load):
    model = load(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with open(folder / "model.safetensors", "r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\xff" * size)
        file.flush()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        file.truncate(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_loaded_encoder_does_not_depend_on_its_file(tmp_path):
    AutoModel.from_config(AutoConfig.for_model(**tiny_encoder("bert"))).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


# -- encoders ------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder_folder(tmp_path):
    torch.manual_seed(0)
    BertForMaskedLM(AutoConfig.for_model(**tiny_encoder("bert"))).save_pretrained(tmp_path)
    return tmp_path


def test_heads_of_other_tasks_and_poolers_are_left_out(encoder_folder):
    names = load_file(encoder_folder / "model.safetensors")
    assert any(name.startswith("cls.") for name in names)
    assert not any("pooler" in name for name in names)
    encoder = load_encoder(encoder_folder)
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(encoder.state_dict()[name], names[f"bert.{name}"])


@pytest.mark.parametrize("name", ["encoder.layer.1.output.dense.weight", "embeddings.LayerNorm.bias"])
def test_encoder_with_a_missing_weight_raises(encoder_folder, name):
    changed(encoder_folder, lambda weights: weights.pop(f"bert.{name}"))
    with pytest.raises(ValueError, match=rf"The encoder .*1 missing \({name}\)"):
        load_encoder(encoder_folder)


def test_encoder_with_an_edited_configuration_raises(encoder_folder):
    changed_config(encoder_folder, lambda config: config.update(num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"16 unexpected \(.*encoder\.layer\.1\."):
        load_encoder(encoder_folder)
    changed_config(encoder_folder, lambda config: config.update(num_hidden_layers=2, intermediate_size=8))
    with pytest.raises(ValueError, match="6 of another shape"):
        load_encoder(encoder_folder)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("GLiClass", "is a GLiClass checkpoint, not an encoder"),
        ("my-model", "Code that comes with a checkpoint is never run"),
        (None, "model_type=None"),
        (3, "model_type=3"),
    ],
)
def test_folder_without_an_encoder_raises(encoder_folder, model_type, message):
    """The code that a configuration names is not run."""
    code = {"AutoConfig": "configuration.Evil", "AutoModel": "modeling.Evil"}
    (encoder_folder / "configuration.py").write_text("raise SystemExit")
    changed_config(encoder_folder, lambda config: config.update(model_type=model_type, auto_map=code))
    with pytest.raises(ValueError, match=message):
        load_encoder(encoder_folder)


def test_code_in_an_encoder_folder_is_not_run(encoder_folder):
    code = {"AutoConfig": "configuration.Evil", "AutoModel": "modeling.Evil"}
    (encoder_folder / "configuration.py").write_text("raise SystemExit")
    (encoder_folder / "modeling.py").write_text("raise SystemExit")
    changed_config(encoder_folder, lambda config: config.update(auto_map=code))
    assert type(load_encoder(encoder_folder)).__name__ == "BertModel"
    encoder = json.loads((encoder_folder / "config.json").read_text())
    assert type(build_encoder(tiny_config("uni-encoder").encoder_config.from_dict(encoder))).__name__ == "BertModel"


def test_rewritten_weights_are_read_again(encoder_folder):
    first = load_encoder(encoder_folder)
    changed(encoder_folder, lambda weights: weights["bert.embeddings.LayerNorm.bias"].add_(1))
    second = load_encoder(encoder_folder)
    assert not torch.equal(first.embeddings.LayerNorm.bias, second.embeddings.LayerNorm.bias)


# -- types and process-wide state ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_loading_keeps_the_dtype_of_weights(tmp_path, dtype):
    model = tiny_model("uni-encoder").to(dtype)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def swapped() -> dict:
    """Process-wide state that transformers and torch change while a model is built."""
    from transformers import PreTrainedModel

    functions = {name: getattr(torch.nn.init, name) for name in dir(torch.nn.init) if name.endswith("_")}
    return {
        **functions, "kaiming": torch.nn.modules.linear.init.kaiming_uniform_, "dtype": torch.get_default_dtype(),
        "tie": PreTrainedModel.tie_weights, "init": PreTrainedModel.init_weights, "linspace": torch.linspace,
        "generator": torch.random.get_rng_state().tolist(),
    }  # fmt: skip


def test_loading_restores_process_state(folder):
    before = swapped()
    load_model(folder)
    GLiClassModel.from_pretrained(folder)
    assert swapped() == before
    changed(folder, lambda weights: weights.pop(QUERY))
    for load in LOADERS:
        with pytest.raises(ValueError, match="missing"):
            load(folder)
        assert swapped() == before


def test_other_threads_see_their_own_default_dtype(tmp_path):
    """transformers sets the dtype of a model as the default of all threads while it builds the model."""
    tiny_model("bi-encoder").to(torch.bfloat16).save_pretrained(tmp_path)
    stop, seen = threading.Event(), set()

    def watch():
        while not stop.is_set():
            seen.add(torch.get_default_dtype())

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        for _ in range(8):
            load_model(tmp_path)
        stop.set()
        watcher.result()
    assert seen == {torch.float32}


def test_loading_in_threads_restores_process_state(folder):
    before, expected = swapped(), load_model(folder).state_dict()
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load_model(folder), range(16)))
    assert swapped() == before
    for model in models:
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_load_waits_for_the_lock(folder):
    with ThreadPoolExecutor(1) as pool:
        with process_lock():
            load = pool.submit(load_model, folder)
            assert not load.done()
        load.result(timeout=60)


# -- modules that were changed from outside ------------------------------------------------------------------


def attention(model):
    return model.encoder.encoder.layer[0].attention.self


def add_lora(model):
    attention(model).query = LoraLinear(attention(model).query)


def add_parametrization(model):
    torch.nn.utils.parametrizations.weight_norm(attention(model).query)


def prune(model):
    torch.nn.utils.prune.l1_unstructured(attention(model).query, "weight", 0.5)


def resize(model):
    model.encoder.resize_token_embeddings(50)
    model.config.encoder_config.vocab_size = 40


def edit_config(model):
    model.config.use_lstm = True


@pytest.mark.parametrize("change", [add_lora, add_parametrization, prune, resize, edit_config])
def test_model_that_could_not_be_loaded_is_not_saved(tmp_path, change):
    model = tiny_model("uni-encoder")
    change(model)
    with pytest.raises(ValueError, match=r"cannot be saved.*merge_and_unload"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be saved"):
        named_weights(model)
    assert not (tmp_path / "model.safetensors").exists()


def test_compiled_part_is_saved_under_its_own_names(tmp_path):
    model = tiny_model("bi-encoder", tie_encoders=True)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.model.encoder_model = torch.compile(model.model.encoder_model)
    model.model.label_encoder = model.model.encoder_model
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


def test_skeleton_is_built_once_for_each_configuration(monkeypatch):
    model = tiny_model("uni-encoder", initializer_range=0.123)
    named_weights(model)

    def fail(*args, **kwargs):
        raise AssertionError("built again")

    monkeypatch.setattr(GLiClassModel, "__init__", fail)
    named_weights(model)


def test_weights_under_one_of_their_names_are_recognised():
    encoder = dict(TINY_BERT, vocab_size=30)
    config = GLiClassModelConfig(encoder_config=encoder, architecture_type="bi-encoder", tie_encoders=True)
    model = GLiClassModel(config)
    [name, other] = next(names for names in skeleton(GLiClassModel, config).shared if "query.weight" in names[0])
    assert has_one_name_of_ties(model, {"missing_keys": {other}})
    assert not has_one_name_of_ties(model, {"missing_keys": set()})
    assert not has_one_name_of_ties(model, {"missing_keys": {name, other}})
    assert not has_one_name_of_ties(model, {"missing_keys": {other, "model.logit_scale"}})
