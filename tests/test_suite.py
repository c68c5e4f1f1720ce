"""sim/suite.py"""

import numpy as np
import pytest

from vlamem.sim.suites.protocol import SuiteError, images_of
from vlamem.sim.suites.registry import load_suite, select_tasks

SUITE = "point_mass:SUITE"


def test_tasks_are_selected_by_name_kind_or_all_in_the_suites_order() -> None:
    suite = load_suite(SUITE)
    assert select_tasks(suite, ["far", "near", "far"]) == ("near", "far")
    assert select_tasks(suite, ["skills"]) == ("near", "far")
    assert select_tasks(suite, ["oracle", "memory"]) == ("hidden", "hidden_told")
    assert select_tasks(suite, ["all"]) == tuple(suite.tasks)


@pytest.mark.parametrize(
    ("names", "complaint"), [(["neer"], "did you mean 'near'"), (["qqq"], "choose one of"), ([], "no task")]
)
def test_an_unknown_task_names_the_nearest(names: list[str], complaint: str) -> None:
    with pytest.raises(SuiteError, match=complaint):
        select_tasks(load_suite(SUITE), names)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("tabeltop", "did you mean 'tabletop'"),
        ("point_mass:NOTHING", "is not there"),
        ("no_such_module:SUITE", "needs the module 'no_such_module'"),
    ],
)
def test_a_suite_that_is_not_there_says_so(name: str, complaint: str) -> None:
    with pytest.raises(SuiteError, match=complaint):
        load_suite(name)


def test_a_missing_camera_is_named_with_those_that_exist() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert set(images_of({"top": image, "instruction": "x"}, ("top",))) == {"top"}
    with pytest.raises(SuiteError, match=r"no camera 'wrist', only \['top'\]"):
        images_of({"top": image, "instruction": "x"}, ("wrist",))
