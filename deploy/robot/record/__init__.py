"""What a robot did becomes data: each episode of a controller as an episode of a LeRobotDataset (format v3).

The controller needs nothing of LeRobot: a process of its own writes, which does.
"""

from vlamem.deploy.robot.record.columns import COLUMNS, features_of, frame_of
from vlamem.deploy.robot.record.recorder import Recorder, RecordError
from vlamem.deploy.robot.record.rows import ActedBy, EpisodeRows, Row

__all__ = ["COLUMNS", "ActedBy", "EpisodeRows", "RecordError", "Recorder", "Row", "features_of", "frame_of"]
