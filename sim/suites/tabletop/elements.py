"""What stands on the table: blocks, pads, a bowl, a button, two lights and three cups, as MuJoCo XML.

Every episode of every task uses the same model. Elements that a task does not need are parked out of sight, so that
a new episode never rebuilds the simulation. Positions are in the table frame: origin at the centre of the table top,
x away from the robot, y to its left, z up, in metres.
"""

import xml.etree.ElementTree as ET

import numpy as np

TABLE_HEIGHT = 0.8
"""Height of the table top above the floor [m]."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.08, 0.08),
    "green": (0.08, 0.65, 0.12),
    "blue": (0.10, 0.20, 0.90),
    "yellow": (0.95, 0.85, 0.05),
    "purple": (0.60, 0.10, 0.75),
}
SHAPES = ("cube", "cylinder", "ball")
TABLE_RGB = (0.42, 0.44, 0.47)
DARK = (0.13, 0.13, 0.13)
GO = (0.95, 0.97, 0.95)
N_BLOCKS = 5
N_PADS = 4
N_CUPS = 3
BLOCK_HALF = 0.022
BOWL_RADIUS = 0.055
PAD_RADIUS = 0.045
CUP_HEIGHT = 0.085
LAMP_POSITION = (-0.03, -0.255, 0.045)
GO_POSITION = (-0.03, 0.255, 0.045)
PARKED = np.array([-1.4, 0.0, 0.05])

_LIGHT_RADIUS = 0.038
_BLOCK_MASS = 0.06


def _geom(parent: ET.Element, name: str, kind: str, size: str, solid: bool = True, **more: str) -> None:
    contact = {} if solid else {"contype": "0", "conaffinity": "0"}
    given = {"name": name, "type": kind, "size": size, "group": "1"} | contact | more
    ET.SubElement(parent, "geom", given)


def _body(name: str, **more: str) -> ET.Element:
    return ET.Element("body", {"name": name, "pos": f"{PARKED[0]} {PARKED[1]} {PARKED[2]}"} | more)


def _block(i: int) -> ET.Element:
    """A free body with one geom a shape; an episode turns one of them on."""
    body = _body(f"block{i}")
    ET.SubElement(body, "freejoint", name=f"block{i}_joint")
    inertia = f"{_BLOCK_MASS * (2 * BLOCK_HALF) ** 2 / 6:.3e}"
    ET.SubElement(body, "inertial", pos="0 0 0", mass=str(_BLOCK_MASS), diaginertia=f"{inertia} {inertia} {inertia}")
    touch = {"friction": "0.6 0.02 0.002", "condim": "4", "solimp": "0.95 0.99 0.001", "solref": "0.01 1"}
    half = str(BLOCK_HALF)
    _geom(body, f"block{i}_cube", "box", f"{half} {half} {half}", True, **touch)
    _geom(body, f"block{i}_cylinder", "cylinder", f"{half} {half}", True, **touch)
    ball = dict(touch, condim="6", friction="0.6 0.02 0.01")
    _geom(body, f"block{i}_ball", "sphere", half, True, **ball)
    return body


def _bowl() -> ET.Element:
    body = _body("bowl")
    _geom(body, "bowl_floor", "cylinder", f"{BOWL_RADIUS} 0.003", pos="0 0 0.003", rgba="0.35 0.25 0.2 1")
    for i in range(10):
        angle = 2 * np.pi * i / 10
        x, y = BOWL_RADIUS * np.cos(angle), BOWL_RADIUS * np.sin(angle)
        _geom(
            body,
            f"bowl_wall{i}",
            "box",
            f"0.004 {BOWL_RADIUS * np.tan(np.pi / 10) + 0.002:.4f} 0.012",
            pos=f"{x:.4f} {y:.4f} 0.014",
            euler=f"0 0 {angle:.4f}",
            rgba="0.45 0.32 0.25 1",
        )
    return body


def _button() -> ET.Element:
    body = _body("button")
    _geom(body, "button_base", "box", "0.036 0.036 0.010", pos="0 0 0.010", rgba="0.25 0.25 0.28 1")
    cap = ET.SubElement(body, "body", name="button_cap", pos="0 0 0.032")
    ET.SubElement(cap, "inertial", pos="0 0 0", mass="0.02", diaginertia="5e-6 5e-6 5e-6")
    ET.SubElement(
        cap,
        "joint",
        name="button_slide",
        type="slide",
        axis="0 0 1",
        range="-0.010 0",
        limited="true",
        stiffness="120",
        damping="3",
        springref="0.004",
        armature="0.01",
    )
    _geom(cap, "button_top", "cylinder", "0.026 0.010", rgba="0.7 0.1 0.1 1")
    return body


def _light(name: str, position: tuple[float, float, float]) -> ET.Element:
    x, y, z = position
    body = ET.Element("body", name=name, pos=f"{x} {y} {z + TABLE_HEIGHT}")
    _geom(body, f"{name}_post", "cylinder", f"0.012 {z / 2}", False, pos=f"0 0 {-z / 2}", rgba="0.3 0.3 0.3 1")
    _geom(body, f"{name}_bulb", "sphere", str(_LIGHT_RADIUS), False, material=f"{name}_glow")
    return body


def _cup(i: int) -> ET.Element:
    body = _body(f"cup{i}", mocap="true")
    half = CUP_HEIGHT / 2
    _geom(body, f"cup{i}_side", "cylinder", f"0.036 {half}", pos=f"0 0 {half}", rgba="0.85 0.8 0.72 1")
    _geom(body, f"cup{i}_rim", "cylinder", "0.040 0.006", False, pos="0 0 0.006", rgba="0.6 0.55 0.5 1")
    return body


def elements() -> list[ET.Element]:
    """Bodies to add to the arena's world body."""
    pads = []
    for i in range(N_PADS):
        pad = _body(f"pad{i}")
        _geom(pad, f"pad{i}_disc", "cylinder", f"{PAD_RADIUS} 0.0008", False, rgba="0.5 0.5 0.5 1")
        pads.append(pad)
    zone = _body("zone")
    _geom(zone, "zone_square", "box", "0.055 0.055 0.0006", False, rgba="0.5 0.5 0.5 1")
    pea = _body("pea", mocap="true")
    _geom(pea, "pea_ball", "sphere", "0.022", False, rgba="0.95 0.45 0.1 1")
    return [
        *(_block(i) for i in range(N_BLOCKS)),
        *pads,
        zone,
        _bowl(),
        _button(),
        _light("lamp", LAMP_POSITION),
        _light("go", GO_POSITION),
        *(_cup(i) for i in range(N_CUPS)),
        pea,
    ]


def glow_materials() -> list[ET.Element]:
    """Materials of the lights: they shine by themselves, whatever the lighting."""
    return [
        ET.Element("material", name=f"{name}_glow", emission="0.7", specular="0", shininess="0", rgba="0.1 0.1 0.1 1")
        for name in ("lamp", "go")
    ]
