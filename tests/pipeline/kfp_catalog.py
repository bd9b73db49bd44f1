"""The part of `kfp_api` that keeps pipelines, their versions and recurring runs, as strict as the real one.

    with kfp_api() as api:
        upload(Client(Server(api.host)), package, "1", "")
        assert api.catalog.versions[0]["display_name"] == "1"

A name that exists is refused with 409. In one thing it is stricter: a cron of five fields, which the real one takes and
reads as seconds, minutes, hours, days and months, is refused with 400.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from typing import Any

import yaml

import tests.pipeline.kfp_api as kfp  # which imports this module: only functions may use it

Record = dict[str, Any]
Documents = tuple[Record, Record]
CREATED = "2026-01-01T00:00:00Z"


@dataclass
class Catalog:
    """What a server keeps by name; tests read and change it. `page` is how many recurring runs a page holds."""

    pipelines: list[Record] = field(default_factory=list)
    versions: list[Record] = field(default_factory=list)
    recurring_runs: list[Record] = field(default_factory=list)
    documents: dict[str, Documents] = field(default_factory=dict)  # of a version, by its id
    page: int = 2

    def answer(self, api: "kfp.KfpApi", method: str, path: str, query: Mapping[str, str], body: Any) -> Record:
        match method, re.split("[/:]", path.removeprefix(kfp.ROOT).strip("/")):
            case "GET", ["pipelines"]:
                return self.list_pipelines(api, query)
            case "POST", ["pipelines"]:
                return self.create_pipeline(api, body)
            case "POST", ["pipelines", "upload_version"]:
                return self.upload_version(query, body)
            case "GET", ["pipelines", pipeline_id, "versions"]:
                return self.list_versions(pipeline_id, query)
            case "GET", ["recurringruns"]:
                return self.list_recurring_runs(api, query)
            case "POST", ["recurringruns"]:
                return self.create_recurring_run(api, body)
            case "POST", ["recurringruns", run_id, "enable" | "disable" as action]:
                self.find_recurring_run(run_id)["status"] = f"{action.upper()}D"
                return {}
            case "DELETE", ["recurringruns", run_id]:
                self.recurring_runs.remove(self.find_recurring_run(run_id))
                return {}
        raise kfp.Refused(404, "Not Found")

    def list_pipelines(self, api: "kfp.KfpApi", query: Mapping[str, str]) -> Record:
        namespace = query.get("namespace", "")
        found = [p for p in self.pipelines if p["namespace"] == namespace and kfp.matches(p, query.get("filter"))]
        return {"pipelines": found, "total_size": len(found)} if found else {}

    def create_pipeline(self, api: "kfp.KfpApi", body: Any) -> Record:
        kfp.check_model(body, "V2beta1Pipeline")
        name, namespace = body.get("display_name"), body.get("namespace", "")
        if not name:
            raise kfp.Refused(400, "Invalid input error: pipeline's name cannot be empty")
        if any((pipeline["display_name"], pipeline["namespace"]) == (name, namespace) for pipeline in self.pipelines):
            raise kfp.Refused(
                409, f"Already exist error: Failed to create a new pipeline. The name {name} already exist"
            )
        made = {**body, "name": name, "namespace": namespace, "pipeline_id": str(uuid.uuid4()), "created_at": CREATED}
        self.pipelines.append(made)
        return made

    def upload_version(self, query: Mapping[str, str], body: Any) -> Record:
        if extra := query.keys() - {"name", "display_name", "pipelineid", "description", "tags"}:
            raise kfp.Refused(400, f"unknown parameters {sorted(extra)}")
        if not isinstance(body, bytes):
            raise kfp.Refused(400, "Failed to create a pipeline version: Failed to read pipeline from file")
        pipeline_id, name = query.get("pipelineid"), query.get("name")
        if pipeline_id not in [pipeline["pipeline_id"] for pipeline in self.pipelines]:
            raise kfp.Refused(404, f"ResourceNotFoundError: Pipeline {pipeline_id} not found")
        if any((found["pipeline_id"], found["display_name"]) == (pipeline_id, name) for found in self.versions):
            raise kfp.Refused(
                409, f"Already exist error: Failed to create a new pipeline version. The name {name} already"
            )
        spec, *platform = yaml.safe_load_all(body)
        sent = kfp.documents({"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec)
        made = {
            "pipeline_id": pipeline_id,
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": name,
            "name": name,
            "description": query.get("description", ""),
            "created_at": CREATED,
        }
        self.versions.append(made)
        self.documents[made["pipeline_version_id"]] = sent
        return made

    def list_versions(self, pipeline_id: str, query: Mapping[str, str]) -> Record:
        found = [v for v in self.versions if v["pipeline_id"] == pipeline_id and kfp.matches(v, query.get("filter"))]
        if query.get("sort_by") == "created_at desc":
            found = found[::-1]
        found = found[: int(query.get("page_size", 10))]
        return {"pipeline_versions": found, "total_size": len(found)} if found else {}

    def list_recurring_runs(self, api: "kfp.KfpApi", query: Mapping[str, str]) -> Record:
        api.check_namespace(query.get("namespace", ""))
        first = int(query.get("page_token") or 0)
        found = self.recurring_runs[first : first + self.page]
        more = first + self.page < len(self.recurring_runs)
        return (
            {"recurringRuns": found, **({"next_page_token": str(first + self.page)} if more else {})} if found else {}
        )

    def create_recurring_run(self, api: "kfp.KfpApi", body: Any) -> Record:
        kfp.check_model(body, "V2beta1RecurringRun")
        trigger, mode = body.get("trigger", {}), body.get("mode")
        if not body.get("display_name"):
            raise kfp.Refused(400, "Invalid input error: The recurring run name is empty. Please specify a valid name")
        if body.get("experiment_id") not in [experiment["experiment_id"] for experiment in api.experiments]:
            raise kfp.Refused(404, f"ResourceNotFoundError: Experiment {body.get('experiment_id')} not found")
        if not 1 <= int(body.get("max_concurrency", "0")) <= 10:
            raise kfp.Refused(400, "Invalid input error: The max concurrency must be an integer between 1 and 10")
        if len(trigger) != 1 or mode not in ("ENABLE", "DISABLE"):
            raise kfp.Refused(400, "Invalid input error: a recurring run needs one trigger and a mode")
        if "cron_schedule" in trigger and not re.fullmatch(r"\d+( [\w*/,?-]+){5}", trigger["cron_schedule"]["cron"]):
            raise kfp.Refused(400, f"Invalid input error: Schedule cron is not a supported format: {trigger}")
        if "periodic_schedule" in trigger and int(trigger["periodic_schedule"]["interval_second"]) < 1:
            raise kfp.Refused(400, "Invalid input error: the interval is not positive")
        documents = self.documents_of(body)
        if documents is None:
            raise kfp.Refused(400, "Invalid input error: pipeline_id and version_id are needed")
        kfp.check_parameters(kfp.Run("", body, *documents))
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "status": f"{mode}D", "created_at": CREATED}
        self.recurring_runs.append(made)
        return made

    def find_recurring_run(self, run_id: str) -> Record:
        for run in self.recurring_runs:
            if run["recurring_run_id"] == run_id:
                return run
        raise kfp.Refused(404, f"ResourceNotFoundError: Job {run_id} not found")

    def documents_of(self, body: Record) -> Documents | None:
        """Return the two documents of the version that a run refers to, and None if it brings its own."""
        reference = body.get("pipeline_version_reference")
        if reference is None:
            return None
        for version in self.versions:
            if reference == {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}:
                return self.documents[version["pipeline_version_id"]]
        raise kfp.Refused(404, f"ResourceNotFoundError: PipelineVersion {reference} not found")


def uploaded_file(headers: Message, body: bytes) -> bytes | None:
    """Return the file `uploadfile` of a form, and None for any other body."""
    kind = headers.get("Content-Type", "")
    if not kind.startswith("multipart/form-data"):
        return None
    form = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    for part in form.get_payload():
        if part.get_param("name", header="content-disposition") == "uploadfile":  # type: ignore[union-attr]
            return part.get_payload(decode=True)  # type: ignore[union-attr, return-value]
    return None
