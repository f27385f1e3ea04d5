"""Compares mlapp with pandas in reading a million rows of twenty columns from PostgreSQL, each in its own process.

    make bench-data

starts PostgreSQL, fills a table, and reads it with `pandas.read_sql` (psycopg) and `mlapp.data.sql.read` in turns. It
prints the seconds of each read, and the memory of the process in addition to its imports.
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
    """Start a server and compare the readers; with `--one`, measure one read in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("READER", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_read(*options.one)))
        return
    import psycopg

    from tests import servers

    with servers.postgres() as url:
        with psycopg.connect(url) as connection:
            connection.execute(TABLE.format(rows=options.rows))
        compare_readers(url, options.rounds)


def compare_readers(url: str, rounds: int) -> None:
    """Measure the readers in turns, so that other work on the machine affects all of them."""
    results_by_reader: dict[str, list[dict[str, float]]] = {PANDAS: [], MLAPP: [], BOUND: []}
    for _ in range(rounds):
        for reader, results in results_by_reader.items():
            command = [sys.executable, "-m", "benchmarks.data", "--one", reader, url]
            results.append(json.loads(subprocess.check_output(command)))
    base = {
        key: statistics.median(result[key] for result in results_by_reader[PANDAS]) for key in ("seconds", "megabytes")
    }
    print("| reader | seconds | of pandas | peak memory | of pandas |\n|---|---|---|---|---|")
    for reader, results in results_by_reader.items():
        seconds = statistics.median(result["seconds"] for result in results)
        megabytes = statistics.median(result["megabytes"] for result in results)
        print(
            f"| {reader} | {seconds:.2f} | {seconds / base['seconds']:.2f}"
            f" | {megabytes:.0f} MB | {megabytes / base['megabytes']:.2f} |"
        )


def measure_read(reader: str, url: str) -> dict[str, float]:
    """The seconds of one read in this process, and the growth of the process's peak memory in megabytes."""
    import time

    import pandas as pd
    import sqlalchemy

    from mlapp.data import sql

    # A small read with both first, so that imports and the first connection are not measured.
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    pd.read_sql("SELECT 1 AS one", engine)
    sql.read(url, "SELECT 1 AS one")
    before, start = read_peak_memory(), time.perf_counter()
    if reader == PANDAS:
        table = pd.read_sql(QUERY, engine)
    elif reader == MLAPP:
        table = sql.read(url, QUERY)
    else:
        table = sql.read(url, f"{QUERY} WHERE id >= :first", first=1)
    seconds = time.perf_counter() - start
    assert table.shape[1] == 20
    return {"seconds": seconds, "megabytes": (read_peak_memory() - before) / 1024}


def read_peak_memory() -> int:
    """The peak resident memory of this process in kB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
