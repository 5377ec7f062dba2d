"""Imports of the package, and files that further fits read, each in a process of its own."""

import os
import subprocess
import sys

import pytest
from forked import needs_fork, start

import sklearn_gliclass
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.data.tokenizer import train_tokenizer
from sklearn_gliclass.model.config import GLiClassModelConfig
from sklearn_gliclass.model.loading import build_encoder
from sklearn_gliclass.testing import TINY, TINY_BERT


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_that_is_not_needed_is_imported_with_the_package():
    loaded = run("import sys, sklearn_gliclass; sys.stdout.write(' '.join(sys.modules))").split()
    assert not {"matplotlib", "polars", "gliclass", "IPython", "sentence_transformers"} & set(loaded)
    # Slow imports, which are delayed until a model is built.
    assert not {"transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor"} & set(loaded)


LAZY = """
import sys, sklearn_gliclass
loaded = {"torch", "sklearn", "transformers", "numpy", "pandas"} & set(sys.modules)
assert not loaded, loaded
names = dir(sklearn_gliclass)
assert set(sklearn_gliclass.__all__) <= set(names), names
assert not {"torch", "sklearn"} & set(sys.modules)
assert sklearn_gliclass.testing.TINY  # submodules need no import of their own
assert not {"torch", "sklearn"} & set(sys.modules)
assert "GLiClassClassifier" not in vars(sklearn_gliclass)
"""


def test_public_names_are_imported_at_first_use():
    run(LAZY)
    for name in sklearn_gliclass.__all__:
        assert getattr(sklearn_gliclass, name) is vars(sklearn_gliclass)[name]
    with pytest.raises(AttributeError, match=r"^module 'sklearn_gliclass' has no attribute 'GLiClassifier'$"):
        sklearn_gliclass.GLiClassifier  # noqa: B018


def fits_that_note_opened_files(folder, result):
    opened = []
    clf = GLiClassClassifier(**{**TINY, "encoder_config": None, "encoder_model": str(folder), "max_epochs": 1})
    texts, labels = ["a goal", "a vote"], ["sports", "politics"]
    clf.fit(texts, labels)
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    for scorer in ("simple", "mlp"):
        clf.set_params(scorer_type=scorer).fit(texts, labels).predict(texts)
    result.write_text(" ".join(path for path in opened if path.startswith(f"{folder}{os.sep}")))


@needs_fork
def test_further_fit_reads_no_file_of_the_encoder(tmp_path):
    tokenizer = train_tokenizer(["a goal and a vote", "sports and politics"])
    folder, result = tmp_path / "encoder", tmp_path / "opened"
    tokenizer.save_pretrained(folder)
    config = GLiClassModelConfig(encoder_config={**TINY_BERT, "vocab_size": len(tokenizer)}).encoder_config
    build_encoder(config).save_pretrained(folder)
    start(fits_that_note_opened_files, folder, result).join()  # a hook cannot be removed from this process
    assert result.read_text() == ""
