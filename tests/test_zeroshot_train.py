"""benchmarks/zeroshot_train.py: the weight delta of one or several trainings."""

import argparse

import pytest
import torch
from safetensors.torch import save_file

import zeroshot_train
from sklearn_gliclass.model import lookup
from sklearn_gliclass.model.loading import load_encoder


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_mean_of_the_runs_is_shipped_or_a_share_of_it(share, tmp_path, monkeypatch):
    plain = load_encoder(lookup.find_checkpoint(lookup.DEFAULT_ENCODER))
    weight = plain.encoder.layer[0].attention.self.query.weight.detach()
    moves = torch.randn(3, *weight.shape, generator=torch.Generator().manual_seed(0)) / 100
    folders = [tmp_path / str(number) for number in range(3)]
    for folder, move in zip(folders, moves, strict=True):
        folder.mkdir()
        save_file({"encoder.layer.0.attention.self.query.weight": weight + move}, folder / zeroshot_train.WEIGHTS_FILE)
    monkeypatch.setattr(lookup, "OWN_WEIGHTS", tmp_path / "own" / "shipped.safetensors")
    zeroshot_train.ship(argparse.Namespace(output=folders, ship=share))

    shipped = load_encoder(lookup.find_checkpoint(lookup.DEFAULT_ENCODER), weight_delta=lookup.OWN_WEIGHTS)
    found = shipped.encoder.layer[0].attention.self.query.weight.detach() - weight
    # Error of 4 bits: half a step, for 7 steps up to the largest number of a block.
    assert (found - share * moves.mean(dim=0)).abs().max() < share * moves.mean(dim=0).abs().max() / 14 + 1e-4
    key = "encoder.layer.1.attention.self.query.weight"
    assert torch.equal(shipped.state_dict()[key], plain.state_dict()[key])


def test_training_writes_one_folder(tmp_path, capsys):
    with pytest.raises(SystemExit):
        zeroshot_train.main(["--output", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "--ship takes several" in capsys.readouterr().err
