"""Schedules: recurring runs of an uploaded version, and the command `schedules` that lists, pauses and deletes them.

    create(client, version, Schedule("nightly", cron="0 3 * * *"), experiment="irra", ...)

What runs is a pipeline on the server: a schedule goes on until it is paused or deleted, whatever becomes of this code.
"""

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irra.utils.errors import UserError
from pipeline.command_line import add_command, add_server, chosen_server

if TYPE_CHECKING:  # kfp takes a second, and `--help` should not
    from pipeline.server.catalog import Version
    from pipeline.server.client import Client

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# name, lowest and highest value, and the names that stand for the values from the lowest on
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, DAYS),
)
PART = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")
INTERVAL = re.compile(r"([1-9]\d*)([mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86400}
STATES = {"ENABLED": "on", "DISABLED": "paused"}


@dataclass(frozen=True)
class Schedule:
    """When runs start: at the times of `cron`, which has five fields, or once in `interval`, such as 6h."""

    name: str
    cron: str | None = None
    interval: str | None = None

    def times(self) -> str:
        """Say when runs start."""
        return f"{self.cron}, in the server's time zone" if self.cron else f"every {self.interval}"

    def trigger(self) -> Any:
        """Return how the API says it.

        Raises:
            UserError: It is not a time that the server knows.
        """
        import kfp_server_api as api

        if self.cron:
            return api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=six_fields(self.cron)))
        match = INTERVAL.fullmatch(self.interval or "")
        if not match:
            raise UserError(f"--every {self.interval}: expected a whole number of minutes, hours or days, such as 6h")
        seconds = str(int(match[1]) * SECONDS[match[2]])
        return api.V2beta1Trigger(periodic_schedule=api.V2beta1PeriodicSchedule(interval_second=seconds))


def six_fields(cron: str) -> str:
    """Turn the five fields that people write into the server's six, of which the first are seconds.

    The server would take five fields too, and read them as seconds, minutes and so on.

    Raises:
        UserError: A field is not one of cron's; the message names it.
    """
    fields = cron.split()
    if len(fields) != len(FIELDS):
        names = ", ".join(name for name, *_ in FIELDS)
        raise UserError(
            f"schedule {cron!r} has {len(fields)} fields; expected {len(FIELDS)} ({names}), as in '0 3 * * *'"
        )
    for text, (name, low, high, words) in zip(fields, FIELDS, strict=True):
        if not all(_is_part(part, low, high, words) for part in text.split(",")):
            also = f", or {words[0]} to {words[-1]}" if words else ""
            raise UserError(
                f"schedule {cron!r}: {text!r} is no {name}; expected * or numbers from {low} to {high}{also}, "
                "also lists (1,15), ranges (1-5) and steps (*/10)"
            )
    return " ".join(("0", *fields))


def _is_part(text: str, low: int, high: int, words: tuple[str, ...]) -> bool:
    match = PART.fullmatch(text)
    if not match or match["step"] == "0":
        return False
    if match["first"] == "*":
        return match["last"] is None
    values = [_value(match[name], low, words) for name in ("first", "last") if match[name]]
    return values == sorted(values) and all(low <= value <= high for value in values)


def _value(text: str, low: int, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return low + words.index(text.lower())
    return int(text) if text.isdecimal() else -1


def create(
    client: "Client",
    version: "Version",
    schedule: Schedule,
    *,
    experiment: str,
    service_account: str | None,
    description: str,
) -> str:
    """Let the server run a version on a schedule, one run at a time, and return the id.

    Times that pass while it is paused are not made up for.

    Raises:
        UserError: There is a schedule of that name, or the server refused.
    """
    import kfp_server_api as api

    trigger = schedule.trigger()
    if known := [found for found in _all(client) if found.display_name == schedule.name]:
        raise UserError(
            f"{client.host} has a schedule {schedule.name!r} ({known[0].recurring_run_id}): give another --name, or "
            f"delete it (python -m pipeline schedules delete)"
        )
    body = api.V2beta1RecurringRun(
        display_name=schedule.name,
        description=description,
        pipeline_version_reference=version.reference,
        runtime_config=api.V2beta1RuntimeConfig(parameters={}),
        service_account=service_account,
        max_concurrency="1",
        no_catchup=True,
        mode=api.RecurringRunMode.ENABLE,
        trigger=trigger,
        experiment_id=client.experiment_id(experiment),
    )
    method = client._recurring_run_api.recurring_run_service_create_recurring_run
    return str(client.ask(method, recurring_run=body).recurring_run_id)


def add_schedule(command: argparse.ArgumentParser) -> None:
    """Add when to run and what to call it."""
    when = command.add_mutually_exclusive_group(required=True)
    when.add_argument("cron", nargs="?", metavar="CRON", help="such as '0 3 * * *': minute, hour, day, month, weekday")
    when.add_argument("--every", metavar="TIME", help="such as 90m, 6h or 1d, instead of CRON")
    command.add_argument("--name", default="irra", help="of the schedule (default: %(default)s)")


def add_commands(commands: Any) -> None:
    """Add the command `schedules`."""
    command = add_command(
        commands, "schedules", manage, "list, pause, resume or delete schedules on a Kubeflow cluster"
    )
    command.add_argument("action", nargs="?", default="list", choices=("list", "pause", "resume", "delete"))
    command.add_argument("name", nargs="?", metavar="NAME", help="name or id of a schedule")
    add_server(command)


def manage(options: argparse.Namespace) -> None:
    """List schedules, or do something to one of them.

    Raises:
        UserError: No schedule is named, or it is not there, or several are of that name.
    """
    from pipeline.server.client import Client

    if (options.action == "list") != (options.name is None):
        raise UserError(f"schedules {options.action} takes {'no' if options.name else 'the'} name of a schedule")
    client = Client(chosen_server(options))
    client.check_api()
    if options.action == "list":
        print("\n".join(_line(found) for found in _all(client)) or "no schedules")
        return
    api, schedule = client._recurring_run_api, _find(client, options.name)
    method = {
        "pause": api.recurring_run_service_disable_recurring_run,
        "resume": api.recurring_run_service_enable_recurring_run,
        "delete": api.recurring_run_service_delete_recurring_run,
    }[options.action]
    client.ask(method, schedule.recurring_run_id)
    done = {"pause": "paused", "resume": "resumed", "delete": "deleted"}[options.action]
    print(f"{schedule.display_name} ({schedule.recurring_run_id}): {done}")


def _all(client: "Client") -> list[Any]:
    from pipeline.server.catalog import every

    method = client._recurring_run_api.recurring_run_service_list_recurring_runs
    return list(every(client, method, "recurring_runs", namespace=client.get_user_namespace()))


def _find(client: "Client", name: str) -> Any:
    schedules = _all(client)
    found = [schedule for schedule in schedules if name in (schedule.recurring_run_id, schedule.display_name)]
    if not found:
        known = ", ".join(schedule.display_name for schedule in schedules) or "none"
        raise UserError(f"{client.host} has no schedule {name!r}; there are: {known}")
    if len(found) > 1:
        ids = ", ".join(schedule.recurring_run_id for schedule in found)
        raise UserError(f"{client.host} has {len(found)} schedules {name!r}; give the id of one: {ids}")
    return found[0]


def _line(schedule: Any) -> str:
    """Say what a schedule is called, when it runs, and whether it does."""
    trigger = schedule.trigger
    if trigger.cron_schedule:
        when = trigger.cron_schedule.cron
        when = when.removeprefix("0 ") if len(when.split()) == len(FIELDS) + 1 else when
    else:
        when = f"every {int(trigger.periodic_schedule.interval_second) // 60} min"
    return (
        f"{schedule.display_name}: {when}, {STATES.get(schedule.status, schedule.status)}, {schedule.recurring_run_id}"
    )
