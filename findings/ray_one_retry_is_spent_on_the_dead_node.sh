#!/usr/bin/env bash
# Ray 2.60.0: max_restarts=-1 and max_task_retries=1 do not carry an actor's task over the loss of its node.
#
# Guess: an actor that may be restarted as often as needed, and a task that may be tried once more, survive one lost
# node: Ray starts the actor where a processor is free and runs the task there.
# Seen: the try is spent at once, on the address of the actor that was lost, seconds before Ray declares the node dead:
# ray.get raises ActorUnavailableError, while the other node stays idle. The actor is restarted there a little later, and
# a second call on the same handle succeeds. A try that ran nowhere counts as one.
# For robot learning: episodes and shards of training on preemptible machines are lost that were asked to be retried.
# vlamem: keeps which job each actor has, and gives it to another actor when one is lost.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" ray==2.60.0
env -u PYTHONDONTWRITEBYTECODE "$work/env/bin/python" -m compileall -q "$work/env/lib" >/dev/null || true
cat >"$work/case.py" <<'PY'
import os
import time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_raylet_start_wait_time_s"] = "600"
import ray
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
nodes = {node.node_id: node for node in (cluster.add_node(**NODE), cluster.add_node(**NODE))}
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=1)
class Worker:
    def work(self, seconds):
        time.sleep(seconds)
        return ray.get_runtime_context().get_node_id()


worker = Worker.remote()
first = ray.get(worker.work.remote(0))
asked = worker.work.remote(20)
time.sleep(2)
cluster.remove_node(nodes.pop(first), allow_graceful=False)
try:
    print("the task ran again, on the other node:", ray.get(asked) in nodes)
    raise SystemExit(1)
except ray.exceptions.ActorUnavailableError as error:
    print("the task that had a try left:", type(error).__name__)
end = time.monotonic() + 300
while time.monotonic() < end:
    try:
        print("another call some seconds later ran on the other node:", ray.get(worker.work.remote(0)) in nodes)
        raise SystemExit(0)
    except ray.exceptions.ActorUnavailableError:
        time.sleep(1)
raise SystemExit(1)
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null | grep -E "^(the task|another call)"
echo "as described: one retry is spent on the node that is gone"
