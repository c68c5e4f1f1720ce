"""A simulation with its renderers, lent to one environment at a time: building one takes seconds."""

from vlamem.sim.suites.tabletop.render import Cameras, Profile
from vlamem.sim.suites.tabletop.scene import Scene


class Stage:
    """One scene, and its cameras by image size."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.scene = Scene(detailed=profile == "faithful")
        self._cameras: dict[int, Cameras] = {}

    def cameras(self, size: int) -> Cameras:
        """The renderer for images of `size` x `size` pixels, made when first asked for."""
        if size not in self._cameras:
            self._cameras[size] = Cameras(self.scene.model, size, self.profile)
        return self._cameras[size]

    def close(self) -> None:
        """Frees renderers and simulation."""
        for cameras in self._cameras.values():
            cameras.close()
        self._cameras.clear()
        self.scene.close()


_idle: dict[Profile, list[Stage]] = {"fast": [], "faithful": []}


def borrow(profile: Profile) -> Stage:
    """A stage that no environment of this process uses."""
    return _idle[profile].pop() if _idle[profile] else Stage(profile)


def give_back(stage: Stage) -> None:
    """Keeps a stage for the next environment."""
    _idle[stage.profile].append(stage)


def close_idle() -> None:
    """Frees the stages that no environment uses, about 250 MB each."""
    for stages in _idle.values():
        while stages:
            stages.pop().close()
