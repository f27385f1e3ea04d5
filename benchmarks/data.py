"""Reading a million rows of twenty columns from PostgreSQL: mlapp beside pandas, each in a process of its own.

    make bench-data

starts a PostgreSQL, fills a table, and reads it with `pandas.read_sql` (psycopg) and with `mlapp.data.sql.read`, in
turns. It prints the seconds of each read and the memory that the process needed on top of what its imports take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

TABLE = """
    CREATE TABLE wide AS SELECT
        i AS id, (i % 100)::int AS c1, (i * 7 % 1000)::bigint AS c2,
        random() AS f1, random() AS f2, random() AS f3, random() AS f4,
        random() AS f5, random() AS f6, random() AS f7, random() AS f8,
        CASE WHEN i % 10 > 0 THEN i % 5 END::int AS n1,
        'name' || (i % 1000) AS s1, ('city' || (i % 50))::varchar(20) AS s2, md5(i::text) AS s3,
        timestamp '2020-01-01' + i * interval '1 second' AS t1,
        timestamptz '2020-01-01' + i * interval '1 minute' AS t2,
        date '2020-01-01' + (i % 1000)::int AS d1, i % 2 = 0 AS b1, (i / 100.0)::numeric(12, 2) AS m1
    FROM generate_series(1, {rows}) i
"""
QUERY = "SELECT * FROM wide"

PANDAS = "pandas.read_sql"
MLAPP = "mlapp.data.sql.read"
BOUND = "mlapp.data.sql.read, with a parameter"


def main() -> None:
    """Start a server and compare, or (`--one`) make one read in this process."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--one", nargs=2, metavar=("READER", "URL"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    import psycopg

    from tests import servers

    with servers.postgres() as url:
        with psycopg.connect(url) as connection:
            connection.execute(TABLE.format(rows=given.rows))
        compare(url, given.rounds)


def compare(url: str, rounds: int) -> None:
    """Measure the readers in turns, so that what else the machine does meets them all alike."""
    seen: dict[str, list[dict[str, float]]] = {PANDAS: [], MLAPP: [], BOUND: []}
    for _ in range(rounds):
        for reader, results in seen.items():
            command = [sys.executable, "-m", "benchmarks.data", "--one", reader, url]
            results.append(json.loads(subprocess.check_output(command)))
    base = {key: statistics.median(result[key] for result in seen[PANDAS]) for key in ("seconds", "megabytes")}
    print("| reader | seconds | of pandas | peak memory | of pandas |\n|---|---|---|---|---|")
    for reader, results in seen.items():
        seconds = statistics.median(result["seconds"] for result in results)
        megabytes = statistics.median(result["megabytes"] for result in results)
        print(
            f"| {reader} | {seconds:.2f} | {seconds / base['seconds']:.2f}"
            f" | {megabytes:.0f} MB | {megabytes / base['megabytes']:.2f} |"
        )


def measure(reader: str, url: str) -> dict[str, float]:
    """One read in this process: its seconds, and by how many megabytes the process's peak grew."""
    import time

    import pandas as pd
    import sqlalchemy

    from mlapp.data import sql

    # Both have done a small read, so that neither pays for imports and first connections.
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    pd.read_sql("SELECT 1 AS one", engine)
    sql.read(url, "SELECT 1 AS one")
    before, start = peak(), time.perf_counter()
    if reader == PANDAS:
        table = pd.read_sql(QUERY, engine)
    elif reader == MLAPP:
        table = sql.read(url, QUERY)
    else:
        table = sql.read(url, f"{QUERY} WHERE id >= :first", first=1)
    seconds = time.perf_counter() - start
    assert table.shape[1] == 20
    return {"seconds": seconds, "megabytes": (peak() - before) / 1024}


def peak() -> int:
    """The largest resident size of this process so far, in kB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
