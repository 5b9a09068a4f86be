"""Calls that are made at the same moment."""

import threading


def together(calls) -> list[BaseException | None]:
    """Make calls in threads that start at the same moment; returns what they raised."""
    raised, start = [None] * len(calls), threading.Barrier(len(calls))

    def make(number):
        start.wait(60)
        try:
            calls[number]()
        except BaseException as error:
            raised[number] = error

    threads = [threading.Thread(target=make, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return raised


def check_whole(dataset, key, base):
    """A run has its fields and values."""
    for suffix, of in columns(dataset, base=base, evidence=True).items():
        found = dataset.values(f"{key}_{suffix}" if suffix != "suggestion" else f"{key}_suggestion.label")
        labels = {id: getattr(value, "label", value) for id, value in of.items()}
        assert found == [labels.get(id) for id in dataset.values("id")], (key, suffix)
