"""Questions are asked once, again where a call fails, and never twice."""

import time
from dataclasses import replace
from threading import Event

import pytest

from fiftyone_ecif.preference import GivenGenerator, KeptAnswers, ask, content_of


@pytest.fixture
def kept(tmp_path):
    return KeptAnswers(tmp_path / "answers")


def generator(function, patience=20.0):
    function.fingerprint = "one"
    return GivenGenerator(function, patience)


def test_nothing_is_asked_twice_whatever_interrupted_the_first_time(questions, kept):
    asked = []

    def describe(images, prompts):
        asked.extend(image.tobytes() for image in images)
        return ["a drawing"] * len(prompts)

    def cancel(done, total):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(generator(describe), questions, kept, together=3, report=cancel)
    assert len(asked) == 6
    answers, failed = ask(generator(describe), [*questions, questions[0]], kept, together=5)
    assert len(asked) == len(set(asked)) == len(answers) == 12 and failed == {}
    ask(generator(describe), [replace(questions[0], step=700), replace(questions[0], prompt="other")], kept)
    assert len(asked) == 14


def test_answers_of_another_model_are_not_taken(questions, kept):
    def describe(images, prompts):
        return ["first"]

    ask(generator(describe), questions[:1], kept)

    def named(name):
        return lambda images, prompts: [name] * len(prompts)

    for name in ("second", "third"):
        answers, _ = ask(GivenGenerator(named(name), 20.0), questions[:1], kept)
        assert answers == {questions[0]: name}


def test_a_call_that_fails_is_repeated_and_one_bad_question_costs_itself_alone(questions, kept):
    calls = []

    def describe(images, prompts):
        calls.append(list(prompts))
        if "bad" in prompts:
            raise RuntimeError("no")
        return ["fine"] * len(prompts)

    asked = [replace(questions[0], prompt="bad"), *questions[1:4]]
    answers, failed = ask(generator(describe), asked, kept, together=4, retries=2)
    assert set(answers) == set(asked[1:])
    assert failed == {asked[0]: "the model failed (RuntimeError: no)"}
    assert sum("bad" in prompts for prompts in calls) == 1 + 3


def test_a_call_that_hangs_is_given_up_and_the_others_are_answered(questions, kept):
    never = Event()

    def describe(images, prompts):
        if prompts == ["hang"]:
            never.wait()
        return ["fine"]

    asked = [replace(questions[0], prompt="hang"), *questions[1:3]]
    answers, failed = ask(generator(describe, patience=0.3), asked, kept, together=1, concurrency=2, retries=0)
    never.set()
    assert set(answers) == set(asked[1:]) and "did not answer within" in failed[asked[0]]


def test_calls_go_side_by_side_as_many_as_asked_for(questions, kept):
    running, most = set(), []

    def describe(images, prompts):
        running.add(id(prompts))
        most.append(len(running))
        time.sleep(0.02)
        running.discard(id(prompts))
        return ["fine"] * len(prompts)

    ask(generator(describe), questions, kept, together=1, concurrency=3)
    assert max(most) <= 3 and max(most) >= 2


def test_answers_that_are_none_and_images_that_are_missing_are_told(questions, kept, tmp_path):
    missing = replace(questions[0], path=str(tmp_path / "none.png"))
    answers, failed = ask(generator(lambda images, prompts: ["fine"] * len(images)), [missing, questions[1]], kept)
    assert set(answers) == {questions[1]} and failed == {missing: "image file is missing"}
    for wrong in ([], [None], ["one", "two"], None):
        _, failed = ask(generator(lambda images, prompts, wrong=wrong: wrong), questions[2:3], kept, retries=0)
        assert list(failed) == questions[2:3]


def test_a_damaged_answer_is_asked_for_again(questions, kept):
    describe = generator(lambda images, prompts: ["fine"])
    ask(describe, questions[:1], kept)
    (file,) = kept.folder.rglob("*.json")
    file.write_text('{"ans')
    assert ask(describe, questions[:1], kept)[0] == {questions[0]: "fine"}


def test_a_file_is_known_by_its_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same"), two.write_bytes(b"same")
    assert content_of(str(one)) == content_of(str(two))
    two.write_bytes(b"other")
    assert content_of(str(one)) != content_of(str(two))
