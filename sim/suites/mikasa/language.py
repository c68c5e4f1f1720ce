"""Oracle instructions, which tell the answer that a task hides. They are this project's; the benchmark has none."""

COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "maroon", "olive", "teal")
"""By the benchmark's number; shapes that come in colours have the first three."""
SHAPES = ("cube", "sphere", "cylinder", "cross", "torus", "star", "pyramid", "T", "crescent")
"""By the benchmark's number, where shapes come without colours."""
_COLOURED_SHAPES = ("cube", "sphere", "T", "cross", "torus")
_COLOURS_OF_SHAPES = 3
BUTTON = "Press the center button."


def oracle_instruction(family: str, key: int) -> str:
    """What to touch, by the benchmark's number of it."""
    if family.endswith("ShapeAndColor"):
        shape, colour = divmod(key, _COLOURS_OF_SHAPES)
        return f"Touch the {COLOURS[colour]} {_COLOURED_SHAPES[shape]}."
    if family.endswith("Shape"):
        return f"Touch the {SHAPES[key]}."
    return f"Touch the {COLOURS[key]} cube."


def oracle_instructions() -> tuple[str, ...]:
    """Every one of them, in a fixed order."""
    pairs = [
        oracle_instruction("RememberShapeAndColor", key) for key in range(len(_COLOURED_SHAPES) * _COLOURS_OF_SHAPES)
    ]
    cubes = [oracle_instruction("RememberColor", key) for key in range(len(COLOURS))]
    shapes = [oracle_instruction("RememberShape", key) for key in range(len(SHAPES))]
    return tuple(dict.fromkeys([*cubes, *shapes, *pairs, BUTTON]))
