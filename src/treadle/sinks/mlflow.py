"""MLflow: experiments on a tracking server, or in a database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Self

from treadle.errors import UsageError
from treadle.sinks.remote import RemoteSink


class MLflow(RemoteSink):
    """Logs a run to MLflow: parameters, metrics, pictures, texts, its journal, summary and best model.

    It is one MLflow run for as long as it lives, found again by its tag `treadle.id`. MLflow keeps what it was sent:
    after a rewind the metrics of both futures are there, and the tag `treadle.rewinds` says from when on the second
    one is. A fork is a run of its own below its parent. Infinities are read back as the largest floats.

    Args:
        uri: the tracking server or database: "http://host:5000", "sqlite:///mlflow.db", "databricks". By default what
            MLFLOW_TRACKING_URI says, else MLflow's own choice, mlflow.db in the current directory.
        experiment: the experiment; it is made where there is none. By default what MLFLOW_EXPERIMENT_NAME or
            MLFLOW_EXPERIMENT_ID says, else the run's name without its version.

    User names, passwords and tokens are MLflow's: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD,
    MLFLOW_TRACKING_TOKEN, or a database's address with a password in MLFLOW_TRACKING_URI.

    Raises:
        UsageError: mlflow is not installed, or `uri` is a directory of files, which MLflow 3 takes no more.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[MLflow(experiment="lines")])     # then: mlflow server
    """

    name: ClassVar[str] = "mlflow"
    title: ClassVar[str] = "MLflow"
    service: ClassVar[str] = "treadle.sinks.services.mlflow:MlflowService"
    package: ClassVar[str] = "mlflow"

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        if uri is not None and (("://" not in uri and uri != "databricks") or uri.startswith("file:")):
            raise UsageError(
                f"{uri!r} is no server or database of MLflow's: expected http://HOST:PORT or sqlite:///FILE.db "
                "(directories of files MLflow 3 takes no more: mlflow migrate-filestore copies them)"
            )
        if uri is not None and (found := re.fullmatch(r"sqlite:///([^/?].*)", uri)):
            uri = f"sqlite:///{Path(found[1]).absolute()}"  # wherever the program goes meanwhile
        super().__init__(uri=uri, experiment=experiment or None)

    @classmethod
    def at(cls, where: str | None) -> Self:
        """WHERE is the name of an experiment, or a tracking URI.

        Raises UsageError for a file or a directory, as its address is then to be written.
        """
        if where and ("://" in where or where.startswith(("file:", "databricks"))):
            return cls(uri=where)
        if where and (where.endswith((".db", ".sqlite")) or where.startswith((".", "~"))):
            raise UsageError(f"{where!r} is no name of an experiment: a database is written sqlite:///FILE.db")
        return cls(experiment=where)
