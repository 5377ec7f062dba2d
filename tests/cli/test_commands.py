"""The command line: from files to files, with messages and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("typer")
from typer.testing import CliRunner

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.cli.commands import app
from sklearn_gliclass.testing import TINY, TINY_BERT

TEXTS = ["a goal", "a vote", "late goal", "new law"] * 3
LABELS = ["sports", "politics", "sports", "politics"] * 3
TINY_OPTIONS = (
    "--set",
    f"encoder_config={json.dumps(TINY_BERT)}",
    "--set",
    "lr=2e-3",
    "--epochs",
    "3",
    "--device",
    "cpu",
)
ROOT = Path(__file__).parent.parent.parent


def run(*arguments, status=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def table():
    return pd.DataFrame({"id": range(12), "text": TEXTS, "label": LABELS, "stars": np.arange(12) / 2})


@pytest.fixture
def data(table, tmp_path):
    table.to_csv(tmp_path / "data.csv", index=False)
    return tmp_path / "data.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    GLiClassClassifier(**TINY, random_state=0).fit(pd.DataFrame({"text": TEXTS}), LABELS).save_pretrained(folder)
    return folder


def test_fitted_model_is_predicted_and_evaluated(data, table, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out.csv"
    result = run("fit", data, "--text", "text", "--label", "label", "-o", model, *TINY_OPTIONS)
    assert "12 texts, 2 labels; model written to" in result.stderr
    run("predict", model, data, "-o", out, "--proba")
    written = pd.read_csv(out)
    clf = GLiClassClassifier.from_pretrained(model)
    assert written["prediction"].tolist() == clf.predict(table[["text"]]).tolist()
    np.testing.assert_allclose(written["probability_sports"], clf.predict_proba(table[["text"]])[:, 1], rtol=1e-4)
    pd.testing.assert_frame_equal(written[["id", "text", "label"]], table[["id", "text", "label"]], check_dtype=False)
    result = run("evaluate", model, data, "--label", "label", "--metrics", tmp_path / "metrics.json")
    expected = clf.score(table[["text"]], table["label"])
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] == expected
    assert f"{expected:.4f}" in result.stdout
    assert "politics" in result.stdout


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "parquet"])
def test_files_of_each_type_are_read_and_written(kind, table, model, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    table.to_csv(tmp_path / "in.csv", index=False)
    if kind == "csv.gz":
        table.to_csv(source, index=False, compression="gzip")
    elif kind == "tsv":
        table.to_csv(source, index=False, sep="\t")
    elif kind == "jsonl":
        table.to_json(source, orient="records", lines=True)
    elif kind == "parquet":
        table.to_parquet(source)
    run("predict", model, source, "-o", out)
    result = run("predict", model, out, "-q")
    assert result.stdout.splitlines()[0] == "id,text,label,stars,prediction,probability"
    assert len(result.stdout.splitlines()) == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"in.csv", source.name, out.name})


def test_text_files_have_one_text_per_line(model, tmp_path):
    (tmp_path / "texts.txt").write_text("a goal\nNone\nNA\n", encoding="utf-8")
    assert run("predict", model, tmp_path / "texts.txt").stdout.count("\n") == 4
    (tmp_path / "texts.csv").write_text("text\nNone\nnull\n", encoding="utf-8")
    assert run("predict", model, tmp_path / "texts.csv").stdout.count("\n") == 3


def test_zero_shot_predicts_the_given_labels(model, data, tmp_path):
    out = tmp_path / "out.csv"
    run("zero-shot", data, "--labels", "a goal, a vote", "-m", model, "-o", out)
    assert set(pd.read_csv(out)["prediction"]) <= {"a goal", "a vote"}
    (tmp_path / "labels.txt").write_text("goals, and more\nvotes\n")
    result = run("zero-shot", data, "--labels-file", tmp_path / "labels.txt", "-m", model, "--multi-label", "--proba")
    assert '"probability_goals, and more"' in result.stdout


def test_several_labels_per_text(table, tmp_path):
    table["label"] = ["sports", "politics", "sports; politics", "politics"] * 3
    table.to_csv(tmp_path / "data.csv", index=False)
    run("fit", tmp_path / "data.csv", "-o", tmp_path / "model", "--separator", ";", *TINY_OPTIONS)
    result = run("predict", tmp_path / "model", tmp_path / "data.csv")
    assert result.stdout.splitlines()[0] == "id,text,label,stars,prediction"
    result = run("evaluate", tmp_path / "model", tmp_path / "data.csv", "--separator", ";")
    assert "f1_micro" in result.stdout


def test_regress_writes_a_regressor(data, table, tmp_path):
    run("regress", data, "--target", "stars", "-o", tmp_path / "model", *TINY_OPTIONS)
    run("predict", tmp_path / "model", data, "-o", tmp_path / "out.csv")
    reg = GLiClassRegressor.from_pretrained(tmp_path / "model")
    written = pd.read_csv(tmp_path / "out.csv")["prediction"]
    np.testing.assert_allclose(written, reg.predict(table[["text"]]), rtol=1e-4)
    assert "mean_absolute_error" in run("evaluate", tmp_path / "model", data, "--label", "stars").stdout


def test_several_targets_have_columns_of_their_own(table, tmp_path):
    table.assign(mood=["glad", "sad", None, "glad"] * 3).to_csv(tmp_path / "data.csv", index=False)
    run("fit", tmp_path / "data.csv", "-l", "label", "-l", "mood", "-o", tmp_path / "model", *TINY_OPTIONS)
    run("predict", tmp_path / "model", tmp_path / "data.csv", "-o", tmp_path / "out.csv", "--proba")
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert set(predicted["prediction_mood"]) <= {"glad", "sad"}
    np.testing.assert_allclose(predicted[["probability_mood_glad", "probability_mood_sad"]].sum(axis=1), 1, atol=1e-5)
    output = run("evaluate", tmp_path / "model", tmp_path / "data.csv", "-l", "label", "-l", "mood").output
    assert "accuracy_mood" in output
    arguments = ("-l", "label", "-l", "mood", "--separator", ";", "-o", tmp_path / "other")
    assert "one column of labels" in run("fit", tmp_path / "data.csv", *arguments, status=1).output


def test_several_columns_are_read_as_a_table(table, tmp_path):
    table.to_csv(tmp_path / "data.csv", index=False)
    run("fit", tmp_path / "data.csv", "-t", "text", "-t", "id", "-o", tmp_path / "model", *TINY_OPTIONS)
    clf = GLiClassClassifier.from_pretrained(tmp_path / "model")
    assert clf.feature_names_in_.tolist() == ["text", "id"]
    assert "prediction" in run("predict", tmp_path / "model", tmp_path / "data.csv").stdout


def test_rows_without_a_label_are_left_out(table, tmp_path):
    table.loc[[0, 5], "label"] = None
    table.to_csv(tmp_path / "data.csv", index=False)
    result = run("fit", tmp_path / "data.csv", "-o", tmp_path / "model", *TINY_OPTIONS)
    assert "2 of 12 rows have no label" in result.stderr
    assert "10 texts" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("fit", "{data}", "-o", "{tmp}/m", "--text", "body"), 1, "no column 'body'; its columns are: id, text, label"),
        (("fit", "{data}", "-o", "{tmp}/m", "--label", "class"), 1, "no column 'class'"),
        (("fit", "{tmp}/none.csv", "-o", "{tmp}/m"), 1, "does not exist"),
        (("fit", "{tmp}/data.xls", "-o", "{tmp}/m"), 1, "use one of .csv"),
        (("fit", "{data}"), 2, "--out"),
        (("fit", "{data}", "-o", "{data}"), 1, "is a file"),
        (("fit", "{data}", "-o", "{tmp}/m", "--epochs", "x"), 2, "--epochs"),
        (("fit", "{data}", "-o", "{tmp}/m", "--set", "learning=1"), 1, "NAME=VALUE"),
        (("fit", "{data}", "-o", "{tmp}/m", "--set", "lr=-1"), 1, "'lr' parameter"),
        (("fit", "{tmp}/empty.csv", "-o", "{tmp}/m"), 1, "cannot be read as csv"),
        (("fit", "{tmp}/head.csv", "-o", "{tmp}/m"), 1, "has no rows"),
        (("fit", "{tmp}/binary.csv", "-o", "{tmp}/m"), 1, "it is not UTF-8"),
        (("evaluate", "{model}", "{data}", "--metrics", "{tmp}"), 1, "or it is a folder"),
        (("predict", "{tmp}/none", "{data}"), 1, "none"),
        (("predict", "{model}", "{data}", "-o", "{tmp}/out.xls"), 1, "use one of"),
        (("predict", "{model}", "{data}", "-o", "{tmp}/none/out.csv"), 1, "folder does not exist"),
        (("zero-shot", "{data}"), 2, "--labels"),
        (("zero-shot", "{data}", "--labels", "a"), 1, "At least two labels"),
        (("unknown",), 2, "unknown"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(arguments, status, message, data, model, tmp_path):
    (tmp_path / "data.xls").write_text("x")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("text,label\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80,\x81\n\x00")
    places = {"data": data, "tmp": tmp_path, "model": model}
    result = run(*(argument.format(**places) for argument in arguments), status=status)
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "m").exists()


def test_help_of_each_command_has_an_example():
    overview = run("--help").output
    for command in ("fit", "regress", "predict", "evaluate", "zero-shot"):
        assert command in overview
        assert f"Example:  sklearn-gliclass {command}" in run(command, "--help").output


@pytest.mark.full
def test_command_runs_as_a_process(model, data):
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-c", "from sklearn_gliclass.cli import main; main()"]
    done = subprocess.run(
        [*command, "predict", str(model), str(data)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("id,text,label,stars,prediction,probability\n0,a goal,sports,0.0,")


def test_missing_typer_is_named(monkeypatch, capsys):
    from sklearn_gliclass import cli

    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert 'pip install "sklearn-gliclass[cli]"' in capsys.readouterr().err
