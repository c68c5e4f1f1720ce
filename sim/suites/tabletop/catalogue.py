"""What there is to do on the table, for lists and help; made from the tasks themselves."""

from vlamem.sim.suites.protocol import TaskInfo
from vlamem.sim.suites.tabletop.language import TEMPLATES
from vlamem.sim.suites.tabletop.tasks import MEMORY, ORACLE_SUFFIX, SKILLS

_TEMPLATE_OF = {"place_bowl": "bowl", "place_pad": "pad"}
_ORACLE = {"shell_game": "touch", "count_press": "presses_left", "put_back": "put_back_told"}


def catalogue() -> dict[str, TaskInfo]:
    """TaskInfo of every task by name: skills, memory tasks, oracle variants."""
    tasks = {}
    for skill in SKILLS:
        made = skill()
        sentences = TEMPLATES[_TEMPLATE_OF.get(skill.name, skill.name)]
        tasks[skill.name] = TaskInfo(skill.name, "skill", "", made.chance, made.longest, sentences)
    for memory in MEMORY:
        made = memory()
        tasks[memory.name] = TaskInfo(
            memory.name, "memory", memory.remember, made.chance, made.longest, TEMPLATES[memory.name]
        )
    for memory in MEMORY:
        name = memory.name + ORACLE_SUFFIX
        sentences = TEMPLATES[_ORACLE.get(memory.name, "touch")]
        tasks[name] = TaskInfo(name, "oracle", "", memory().chance, memory().longest, sentences)
    return tasks
