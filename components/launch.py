"""Several processes of one stage on this machine, as `torchrun` starts them: `make repro GPUS=4`."""

import logging
import os
import sys

from irra.utils.cores import available_cores
from irra.utils.errors import UserError

PROCESSES = "IRRA_GPUS"  # environment variable: how many processes train and evaluate together


def wanted_processes() -> int:
    """How many processes this one is to start; 1 if it is one of them.

    Raises:
        UserError: The environment variable holds no number.
    """
    wanted = os.environ.get(PROCESSES, "")
    if not wanted or "RANK" in os.environ:
        return 1
    if not wanted.isdecimal() or int(wanted) == 0:
        raise UserError(f"{PROCESSES}: {wanted!r} is no number of processes, such as 2")
    return int(wanted)


def launch(module: str, processes: int) -> int:
    """Run `module` in `processes` processes with the arguments of this one, and return the exit status.

    They print what went wrong. A signal goes to all of them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # which repeat at length what the processes have said
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="irra",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        if rank == 0:  # of the others' end, the first process tells
            print(f"error: signal {-failure.exitcode} has ended the first process; run it again", file=sys.stderr)
        return 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
