"""The database is killed in the middle of a change: plain words, and afterwards all is as after a kill of the process.

Every command is tried where ``FAULTS=all`` (`make test-faults`), two otherwise.
"""

import signal

import pytest

from tests.conftest import free_port, start_server
from tests.faults.scene import in_child, look_closely, new_scene, refusal, write_new
from tests.faults.test_kills import points


@pytest.fixture
def server(tmp_path):
    """Starts a database server of its own, or the same one again; returns its process id and URI."""
    port, running = free_port(), []

    def start():
        running.append(start_server(tmp_path, port))
        return running[-1].pid, f"mongodb://127.0.0.1:{port}"

    yield start
    for each in running:
        each.send_signal(signal.SIGKILL)
        each.wait(30)


def test_a_killed_database_is_said_in_plain_words_and_costs_nothing(server):
    process, uri = server()
    (name, _, _), _ = in_child(new_scene, uri=uri)
    _, commands = in_child(write_new, name, True, uri=uri)
    (_, new, _), _ = in_child(look_closely, name, uri=uri)
    ends = []
    for point in points(commands - 2, 2):  # the last two give the right back, and read the dataset anew
        (name, others, old), _ = in_child(new_scene, uri=uri)
        said, _ = in_child(refusal, write_new, name, True, kill_at=point, victim=process, uri=uri)
        assert said.startswith("ConnectionError: FiftyOne's database stopped answering while a run was written."), said
        process, uri = server()
        (after, run, left), _ = in_child(look_closely, name, uri=uri)
        assert after == others and left == [], f"killed before command {point} of {commands}"
        assert run in (old, new), f"killed before command {point} of {commands}"
        ends.append("undone" if run == old else "made")
        in_child(write_new, name, True, uri=uri)
        (after, run, left), _ = in_child(look_closely, name, uri=uri)
        assert after == others and run == new and left == []
    print(f"{len(ends)} of {commands} commands tried, {ends.count('undone')} undone, {ends.count('made')} made")
