"""Recommendations for sessions without number, on Apache Spark: Parquet by partition, which can be resumed.

A session belongs to the partition that its id hashes to, whatever the cluster. The model, with features and
rules, is packed once and sent to every machine, where each worker opens it once. A worker answers a partition
and gives its file the final name when it is complete; so what lies there is complete, and a run that was
ended in whatever way is taken up again by the same command, which answers the partitions that are missing.
The folder of the lists has to be on storage that every worker reaches.
"""

from nextclick.batch_spark.driver import recommend_on_spark
from nextclick.batch_spark.worker import Job, opened

__all__ = ["Job", "opened", "recommend_on_spark"]
