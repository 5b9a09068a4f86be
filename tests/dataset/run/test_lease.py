"""One job at a time holds a right; that of a dead job is free, that of a living one is not."""

import multiprocessing
import os
import threading
import time

import pytest

from fiftyone_ecif.dataset.run import lease as leases
from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.dataset.run.lease import Busy, Lease, Lost, held


@pytest.fixture
def name(request):
    return f"test {request.node.name} {os.getpid()}"


def on_record(name):
    return leases.leases().find_one({"_id": name})


def expire(name):
    leases.leases().update_one({"_id": name}, [{"$set": {"expires": {"$subtract": ["$$NOW", 3_600_000]}}}])


def test_a_held_right_is_refused_with_the_holder_and_free_after_it(name):
    with held(name, "Somebody has it.", wait=0):
        refusal = rf"Somebody has it\. It is process {os.getpid()} on "
        with pytest.raises(Busy, match=refusal), held(name, "Somebody has it.", wait=0):
            pass
        assert on_record(name) is not None
    assert on_record(name) is None
    with held(name, "Somebody has it.", wait=0):
        pass


def test_a_right_is_given_back_after_an_error(name):
    with pytest.raises(RuntimeError, match="of the block"), held(name, "", wait=0):
        raise RuntimeError("of the block")
    assert on_record(name) is None


def test_of_many_threads_one_at_a_time_is_inside(name):
    inside, most, entered = [0], [0], []

    def work(number):
        with held(name, "busy", wait=60):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            entered.append(number)
            inside[0] -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(entered) == list(range(6)) and most == [1]


def test_an_expired_right_passes_on_and_its_former_holder_notices(name):
    with held(name, "busy", wait=0) as former:
        former.check()
        expire(name)
        with held(name, "busy", wait=0) as latter:
            latter.check()
            with pytest.raises(Lost, match="stood still"):
                former.check()
        assert on_record(name) is None
    # giving back what has passed on takes nothing from the one who has it now
    first = Lease(name)
    assert first.acquire() is None
    expire(name)
    with held(name, "busy", wait=0) as second:
        first.release()
        second.check()


def test_a_right_is_renewed_while_its_job_works(name, monkeypatch):
    monkeypatch.setattr(leases, "RENEWED", 0.01)
    with held(name, "busy", wait=0):
        expire(name)
        deadline = time.monotonic() + 60
        while on_record(name)["expires"] <= on_record(name)["since"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert on_record(name)["expires"] > on_record(name)["since"]


def test_the_right_of_a_process_that_is_gone_is_free_at_once(name):
    gone = multiprocessing.get_context("spawn").Process(target=int)
    gone.start()
    started = leases._started(gone.pid)
    gone.join()
    with held(name, "busy", wait=0):
        mine = on_record(name)["holder"]
        for holder, dead in (
            (mine, False),
            (mine | {"pid": gone.pid, "started": started}, True),
            (mine | {"started": "1"}, True),  # another process has its number now
            (mine | {"pid": gone.pid, "started": started, "machine": "another"}, False),
            (mine | {"pid": gone.pid, "started": started, "machine": None}, False),
        ):
            assert leases._is_dead(holder) is dead, holder
        database()["ecif.leases"].update_one({"_id": name}, {"$set": {"holder.started": "1"}})
        with held(name, "busy", wait=0) as taken:
            taken.check()
