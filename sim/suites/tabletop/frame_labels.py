"""What recorded frames of the suite's demonstrations show of an answer, for features made without a simulation."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

_LAMP_TASKS = ("recall_colour", "latest_wins", "sequence")


class TabletopFrames:
    """Satisfies vlamem.sim.suites.protocol.FrameLabels."""

    refused: Mapping[str, str] = {
        "patrol": "its answers change with every round, which frames do not say",
        "count_press": "its lamp blinks for 6 ticks, and a waiting robot's frames are as far apart",
    }

    def known(self, task: str, categories: Mapping[str, Int[np.ndarray, "N"]]) -> Bool[np.ndarray, "N"]:
        """At which frames of one episode the answer has been shown, by what is lit and what is hidden."""
        count = len(categories["lamp_colour"])
        if task in _LAMP_TASKS:
            lit = np.flatnonzero(categories["lamp_colour"] > 0)
            return np.arange(count) > (lit[-1] if len(lit) else count)
        if task == "shell_game":
            seen = np.flatnonzero(categories["pea_place"] > 0)
            return np.arange(count) > (seen[-1] if len(seen) else count)
        # put_back shows its answer in the first frame: the pad on which the block stands
        return np.full(count, task == "put_back")


FRAMES = TabletopFrames()
