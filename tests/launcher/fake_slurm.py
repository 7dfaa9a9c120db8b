"""SLURM's commands as submitit calls them, on this machine: `python fake_slurm.py sbatch|srun|scontrol|sacct ...`.

Nodes are names only; every task runs here, with the variables that SLURM would give it.
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

JOB = "4242"


def install(folder: Path) -> None:
    """Write the commands into a folder for PATH."""
    for name in ("sbatch", "srun", "scontrol", "sacct", "scancel"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def sbatch(file: str) -> None:
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", Path(file).read_text(), re.MULTILINE))
    nodes, tasks = int(asked["nodes"]), int(asked["ntasks-per-node"])
    env = {"JOB_ID": JOB, "JOB_NAME": asked["job-name"], "NTASKS": nodes * tasks, "NTASKS_PER_NODE": tasks}
    env |= {"NNODES": nodes, "JOB_NUM_NODES": nodes, "NODELIST": "127.0.0.1", "JOB_NODELIST": "127.0.0.1"}
    variables = os.environ | {f"SLURM_{name}": str(value) for name, value in env.items()}
    copy = Path(file).with_name(f"batch_{JOB}.sh")
    copy.write_text(Path(file).read_text())
    script = f"while [ -z $again ] || [ -e {copy}.again ]; do again=1; rm -f {copy}.again; bash {copy}; done"
    variables["FAKE_SLURM_AGAIN"] = f"{copy}.again"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(["bash", "-c", script], env=variables, start_new_session=True, **quiet)
    print(f"Submitted batch job {JOB}")


def srun(*arguments: str) -> None:
    command = arguments[arguments.index("--kill-on-bad-exit=1") + 1 :]
    output = arguments[arguments.index("--output") + 1].replace("%j", JOB)
    total, tasks = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
    running = []
    for rank in range(total):
        own = {"PROCID": rank, "LOCALID": rank % tasks, "NODEID": rank // tasks}
        variables = os.environ | {f"SLURM_{name}": str(value) for name, value in own.items()}
        with Path(output.replace("%t", str(rank))).open("ab") as file:
            running.append(subprocess.Popen(command, env=variables, stdout=file, stderr=file))
    sys.exit(max(process.wait() for process in running))


def scontrol(*arguments: str) -> None:
    assert arguments == ("requeue", JOB)
    Path(os.environ["FAKE_SLURM_AGAIN"]).touch()


if __name__ == "__main__":
    called = {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}.get(sys.argv[1])
    if called:  # sacct knows nothing, as on clusters without accounting
        called(*sys.argv[2:])
