"""Calls that are made at the same moment."""

import threading

LONGEST = 600
"""Seconds that a call may take on a busy machine."""


def together(calls) -> list[BaseException | None]:
    """Make calls in threads that start at the same moment; returns what they raised once all have ended."""
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
        thread.join(LONGEST)
        assert not thread.is_alive(), f"a call is still at work after {LONGEST} seconds"
    return raised
