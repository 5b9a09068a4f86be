"""The batch size found by trial is the one after which doubling gains nothing, and is remembered."""

import time

import pytest
import torch

import fiftyone_ecif.features.batch_size as batch_size
from fiftyone_ecif.features import embed_pairs
from fiftyone_ecif.features.batch_size import fastest_batch_size

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))


class Machine:
    """A forward pass on a clock of its own: a fixed cost per call and one per image, beyond so many at a time."""

    def __init__(self, monkeypatch, fixed, memory=10**6):
        self.now, self.fixed, self.memory, self.calls = 0.0, fixed, memory, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def forward(self, size):
        self.calls.append(size)
        if size > self.memory:
            raise torch.OutOfMemoryError
        self.now += self.fixed + size


@pytest.mark.parametrize(
    ("fixed", "memory", "expected"),
    [
        (0, 10**6, 16),  # nothing is gained by more
        (100, 10**6, 1024),  # from 1024 to 2048: 1124 × 2 / 2148 = 1.047
        (100, 300, 256),  # 512 do not fit
        (10**9, 10**6, 4096),
    ],
)
def test_trial_stops_where_doubling_gains_nothing_or_memory_ends(monkeypatch, fixed, memory, expected):
    machine = Machine(monkeypatch, fixed, memory)
    assert fastest_batch_size("model", CPU, machine.forward, images=10**5) == expected
    machine.calls.clear()
    assert fastest_batch_size("model", CPU, machine.forward, images=1) == expected  # remembered
    assert not machine.calls
    fastest_batch_size("other", CPU, machine.forward, images=10**5)
    assert machine.calls


def test_a_few_images_are_not_worth_a_trial(monkeypatch):
    machine = Machine(monkeypatch, 100)
    assert fastest_batch_size("model", CPU, machine.forward, images=100) == 64
    assert not machine.calls


@pytest.mark.parametrize("content", ["", "many", "\x00\xff"])
def test_a_damaged_note_is_tried_again(monkeypatch, tmp_path, content):
    machine = Machine(monkeypatch, 100)
    fastest_batch_size("model", CPU, machine.forward, images=10**5)
    (note,) = (tmp_path / "cache" / "batch-sizes").iterdir()
    note.write_text(content, encoding="latin-1")
    assert fastest_batch_size("model", CPU, machine.forward, images=10**5) == 1024
    assert note.read_text() == "1024"


def test_towers_run_at_the_size_found(model, rows, store, tmp_path, monkeypatch):
    expected = embed_pairs(model, rows, tmp_path / "plain").gather(torch.arange(12))
    monkeypatch.setattr(batch_size, "WORTH_TRIAL", 1)
    monkeypatch.setattr(batch_size, "LARGEST", 32)
    model.counts()
    pairs = embed_pairs(model, rows, store)
    assert model.counts()[0] >= 12 + 2 * 16  # the trial
    for one, other in zip(pairs.gather(torch.arange(12)), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
