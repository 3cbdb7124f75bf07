"""Reads every table of a lake with Spark and demands that it sees what pyarrow sees: the same cells, the dictionary's types.

    check_spark.py LAKE

Beside requirements.txt it needs Java 17 and `pip install pyspark==4.1.1`; delta-spark comes from Maven at the first run, with
which it takes minutes; so no other check runs it. Exit 0 only when all is the same.
"""

import os
import sys

import lake as readers
from pyspark.sql import SparkSession
from readers import dictionary, report, tables

SETTINGS = {
    "spark.jars.packages": "io.delta:delta-spark_4.1_2.13:4.4.0",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Spark's vectorized reader does not know BYTE_STREAM_SPLIT, in which the lake's floats are; its other one does.
    "spark.sql.parquet.enableVectorizedReader": "false",
    # As many parts as a small lake needs.
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}


def main(lake):
    builder = SparkSession.builder.master("local[2]")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    types, found, good = dictionary(lake), tables(lake), True
    for table in found:
        place = os.path.abspath(readers.path(lake, table))
        spark = session.read.format("delta").load(place).toArrow()
        good &= report(table, {"pyarrow": readers.read_delta(lake, table), "spark": spark}, types)
    return 0 if found and good else 1


if __name__ == "__main__":
    readers.leave(main(sys.argv[1]))
