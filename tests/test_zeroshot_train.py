"""benchmarks/zeroshot_train.py: rows of the mixture, resumed trainings, averages and the weight delta."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import zeroshot
import zeroshot_train
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model import lookup
from sklearn_gliclass.model.loading import load_encoder
from sklearn_gliclass.testing import TINY
from zeroshot_mixture import multi_hot, one_hot
from zeroshot_train import AVERAGE_FILE, GROUP, LOG_FILE, START, trained_weights

COLOURS = ["red", "green", "blue", "yellow", "black"]
TASKS = [
    one_hot("colours", pd.Series([f"{c} {n}" for c in COLOURS for n in range(9)]),
            pd.Series([c for c in COLOURS for _ in range(9)]), {"red": ["like blood"]}),
    multi_hot("sizes", pd.Series([f"{kind} thing {n}" for kind in ("big", "tall", "big tall") for n in range(9)]),
              pd.Series([kind.split() for kind in ("big", "tall", "big tall") for _ in range(9)]), {}),
]  # fmt: skip


@pytest.fixture
def sampler():
    encoder = SimpleNamespace(transform=lambda texts: np.random.RandomState(0).rand(len(texts), 4))
    return zeroshot_train.Sampler(TASKS, encoder)


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_candidates_hold_where_the_task_says_so(sampler, is_exclusive, monkeypatch):
    """The truth is in the texts, and other wordings are left out."""
    for task in TASKS:
        monkeypatch.setattr(task, "wordings_of", lambda labels, rng, task=task: [task.labels[k] for k in labels])
    texts, candidates = sampler.sample(60, is_exclusive, np.random.RandomState(0))
    assert len(texts) == len(candidates) == 60 * GROUP
    n_none = 0
    for first in range(0, len(texts), GROUP):
        assert len({tuple(row) for row in candidates[first : first + GROUP]}) == 1
    for text, row in zip(texts, candidates, strict=True):
        true = {label: float(label in text.split()) for label in row}
        n_none += not any(true.values())
        total = sum(true.values()) if is_exclusive else 1
        assert row == {label: value / total for label, value in true.items()}
    assert n_none == 0 if is_exclusive else 0.1 < n_none / len(texts) < 0.5


def run(output, start, rounds=5):
    options = [
        "--output",
        str(output),
        "--start",
        str(start),
        "--rounds",
        str(rounds),
        "--batches",
        "2",
        "--lr",
        "1e-3",
    ]
    zeroshot_train.main([*options, "--report-rows", "0"], load=lambda data, shared: TASKS)


def test_interrupted_training_resumes_with_the_same_weights(tmp_path, monkeypatch, capsys):
    texts = [text for task in TASKS for text in task.texts]
    untrained = GLiClassClassifier(**{**TINY, "max_epochs": 0}).fit(texts, ["colour", "size"] * (len(texts) // 2))
    untrained.save_pretrained(tmp_path / "tiny")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, tmp_path / "tiny")
    write = zeroshot_train.save_file

    def fail_in_third_round(tensors, path):
        if "0002" in str(path):
            raise KeyboardInterrupt
        write(tensors, path)

    monkeypatch.setattr(zeroshot_train, "save_file", fail_in_third_round)
    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path / "tiny")
    monkeypatch.setattr(zeroshot_train, "save_file", write)
    run(killed, tmp_path / "tiny")
    folders = [zeroshot_train.last_round(output)[0] for output in (whole, killed)]
    for name in ("model.safetensors", AVERAGE_FILE):
        first, second = (load_file(folder / name) for folder in folders)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    start = load_file(whole / START / "model.safetensors")
    changed = [
        key for key, weight in load_file(folders[0] / "model.safetensors").items() if (weight != start[key]).any()
    ]
    assert any(".layer.0." in key for key in changed)
    assert all(".layer." in key for key in changed)  # neither embeddings nor heads
    log = json.loads((folders[0] / LOG_FILE).read_text())
    assert [row["kind"] for row in log] == ["classes"] * 3 + ["decisions", "classes"]
    assert [row["lr"] for row in log] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])
    assert sorted(path.name for path in whole.iterdir()) == ["round-0004", START]
    capsys.readouterr()
    run(whole, tmp_path / "tiny")  # nothing is left to do
    assert capsys.readouterr().out == ""
    zeroshot_train.main(["--output", str(whole), "--average", "0", "1"])
    for share, expected in (("0", start), ("1", {})):
        found = load_file(whole / f"average-{share}" / "model.safetensors")
        assert all(torch.equal(found[key], weight) for key, weight in expected.items())


def test_report_names_the_sets_that_lose(tmp_path, monkeypatch, capsys):
    accuracy = {"plain": 0.6, "ours": 0.5, "new": 0.57}

    def measure_all(options):
        assert options.rows == 7
        names = {**dict.fromkeys(options.models, "new"), "plain": "plain", "ours": "ours"}
        scores = dict.fromkeys(zeroshot.SCORES, 0.5)
        rows = [{"set": "snips", "model": m, **scores, "accuracy": accuracy[names[m]]} for m in options.models]
        pd.DataFrame(rows).to_csv(options.csv, index=False)

    monkeypatch.setattr(zeroshot, "measure_all", measure_all)
    monkeypatch.setattr(zeroshot_train, "write_average", lambda outputs, share: outputs[0] / f"average-{share:g}")
    zeroshot_train.measure(SimpleNamespace(output=[tmp_path], shared=tmp_path, report_rows=7))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]
    assert lines == ["* snips: ours -0.100 accuracy", f"* snips: {tmp_path / 'average-1'} -0.030 accuracy"]


def test_length_in_minutes_ends_at_the_nearest_round():
    options = SimpleNamespace(rounds=None, minutes=10)
    log = [{"minutes": 4.0}, {"minutes": 3.0}]
    assert zeroshot_train.progress(log, options) == 0.7
    assert not zeroshot_train.is_complete(log, options)  # 7 minutes; another round would end at 10.5
    assert zeroshot_train.is_complete([*log, {"minutes": 2.0}], options)  # 9 minutes; at 12


@pytest.mark.full
def test_share_of_the_mean_of_the_trainings_is_shipped(tmp_path):
    zeroshot_train.write_start("plain", tmp_path / "0" / START)
    plain = load_encoder(lookup.find_checkpoint(lookup.DEFAULT_ENCODER))
    weights = trained_weights(SimpleNamespace(model=SimpleNamespace(encoder_model=plain)))
    name = "encoder.layer.0.attention.self.query.weight"
    moves = torch.randn(2, *weights[name].shape, generator=torch.Generator().manual_seed(0)) / 100
    folders = [tmp_path / str(number) for number in range(2)]
    for folder, move in zip(folders, moves, strict=True):
        last = folder / "round-0000"
        last.mkdir(parents=True)
        tensors = {key: weight.detach() + (move if key == name else 0) for key, weight in weights.items()}
        save_file(tensors, last / AVERAGE_FILE)
        (last / LOG_FILE).write_text("[]")
    share, path = 0.5, tmp_path / "own" / "shipped.safetensors"
    zeroshot_train.ship(folders, share, path)

    shipped = load_encoder(lookup.find_checkpoint(lookup.DEFAULT_ENCODER), weight_delta=path)
    found = shipped.encoder.layer[0].attention.self.query.weight.detach() - weights[name]
    # Error of 4 bits: half a step, for 7 steps up to the largest number of a block.
    assert (found - share * moves.mean(dim=0)).abs().max() < share * moves.mean(dim=0).abs().max() / 14 + 1e-4
    key = "encoder.layer.1.attention.self.query.weight"
    assert torch.equal(shipped.state_dict()[key], plain.state_dict()[key])


def test_training_writes_one_folder(tmp_path, capsys):
    with pytest.raises(SystemExit):
        zeroshot_train.main(["--output", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "--ship take several" in capsys.readouterr().err
