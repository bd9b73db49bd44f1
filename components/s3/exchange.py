"""What a task and the TrainJob that trains for it leave for each other in S3: data one way, the model the other.

The pods of a TrainJob see no artifacts of Kubeflow Pipelines, and the task sees no disks of theirs.
"""

import json
from pathlib import Path
from typing import Any

from components.s3.client import RemoteFolder
from components.s3.transfer import download, upload

PREPARED, TOKENS, MODEL, REPORT = "prepared", "tokens", "model", "report"
RESULT = "result.json"  # written last: with it, the training is over and its model is complete


class Exchange:
    """The folder in S3 that belongs to one training. Every method raises UserError when S3 fails."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._remote = RemoteFolder(uri)

    def send_data(self, prepared: Path, tokens: Path) -> None:
        """Upload the data; what an earlier attempt has uploaded is not sent again."""
        upload(prepared, self._at(PREPARED))
        upload(tokens, self._at(TOKENS))

    def fetch_data(self, prepared: Path, tokens: Path) -> None:
        """Download the data."""
        download(self._at(PREPARED), prepared)
        download(self._at(TOKENS), tokens)

    def send_model(self, model: Path, report: Path, result: dict[str, Any]) -> None:
        """Upload a model, the tables of its training, and what its training returned."""
        upload(model, self._at(MODEL))
        upload(report, self._at(REPORT))
        self._remote.write(RESULT, json.dumps(result).encode())

    def has_model(self) -> bool:
        """Whether the training is over."""
        return RESULT in self._remote.list()

    def fetch_model(self, model: Path, report: Path) -> dict[str, Any]:
        """Download what `send_model` has uploaded, and remove the data, which nobody needs any more."""
        download(self._at(MODEL), model)
        download(self._at(REPORT), report)
        result: dict[str, Any] = json.loads(self._remote.read(RESULT))
        for name in self._remote.list():
            if name.startswith((f"{PREPARED}/", f"{TOKENS}/")):
                self._remote.delete(name)
        return result

    def _at(self, name: str) -> str:
        return f"{self.uri}/{name}"
