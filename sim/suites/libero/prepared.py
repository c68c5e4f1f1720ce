"""Importing this prepares the benchmark in the process that does so: see `vlamem.sim.suites.libero.assets.prepare`.

Named to multiprocessing's forkserver, which imports it once before it forks the processes of a vectorised environment.
"""

from vlamem.sim.suites.libero.assets import prepare

PATHS = prepare(home=True)
"""Where the benchmark's parts are."""
