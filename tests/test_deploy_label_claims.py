"""deploy/server: labels that clients claim, and whose they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy_cases import LONG_S, client, label, run, serving

from vlamem.deploy.server.labels import Label, LabelConflictError, LabelQueue


def test_two_robots_and_two_episodes_may_use_one_label_id_and_both_are_carried_out(tmp_path: Path) -> None:
    done: list[tuple[str, int, str]] = []

    def process(given: Label) -> str:
        done.append((given.session, given.episode, given.outcome))
        return "done"

    first = label("1")
    given = [
        first,
        replace(first, session="leg"),
        replace(first, episode=2, outcome="failure"),
        replace(first, token="t2"),
    ]
    for added in (True, False):  # the second time all are known, on disk too
        queue = LabelQueue(tmp_path / "l.jsonl", process)
        assert [queue.add(each) for each in given] == [added] * 4
        assert queue.drain(LONG_S)
        queue.close()
    assert done == [("arm", 1, "success"), ("leg", 1, "success"), ("arm", 2, "failure"), ("arm", 1, "success")]


@pytest.mark.parametrize("changed", [{"outcome": "failure"}, {"source": "predicate"}])
def test_a_label_that_says_something_else_under_one_id_is_refused_and_never_acknowledged(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    for _ in range(2):
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
        queue.add(label("1"))
        with pytest.raises(LabelConflictError, match="label '1' of arm/1 says success by operator already"):
            queue.add(replace(label("1"), **changed))
        queue.drain(LONG_S)
        queue.close()
    assert (tmp_path / "l.jsonl").read_text().count('"label": {') == 1


def test_a_conflict_of_labels_has_a_code_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
        async with serving(labels=queue) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            for outcome, kind in (("success", "labelled"), ("success", "labelled"), ("failure", "error")):
                said = (await c.ask("label", label="1", episode=1, outcome=outcome))["vlamem"]
                assert said["type"] == kind
            assert said["code"] == "conflict"
            await c.ask("episode_start", episode=2)
            assert (await c.ask("label", label="1", episode=2, outcome="failure"))["vlamem"]["type"] == "labelled"
        queue.close()
        assert queue.stored == 2

    run(scenario)
