"""lerobot's own LIBERO environment (`--env.type=libero`) without a question on standard input and without a download.

On its first import the benchmark asks where its data is, and it fetches meshes from a hub although the packages beside
it have them. Both are forestalled when lerobot imports its plugins, here and in the processes that environments side by
side run in. Renderer and configuration stay the user's: MUJOCO_GL, LIBERO_CONFIG_PATH and ~/.libero are used as they
are.
"""

import importlib.util
import logging
import multiprocessing


def prepare_libero() -> bool:
    """Whether the benchmark is here and ready. Warns, and leaves everything as it is, where its meshes are missing."""
    if importlib.util.find_spec("libero") is None:
        return False
    from vlamem.sim.suites.libero.assets import LiberoMissingError, prepare

    try:
        prepare(home=True)
    except LiberoMissingError as error:
        logging.getLogger(__name__).warning("%s; until then --env.type=libero asks and downloads by itself", error)
        return False
    multiprocessing.set_forkserver_preload(["__main__", "vlamem.sim.suites.libero.prepared"])
    return True
