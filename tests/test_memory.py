"""What is free, by hand."""

import pytest

from aggmask.memory import free_bytes, says_too_little


def write(root, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MACHINE = {"proc/meminfo": "MemTotal: 999 kB\nMemFree: 5 kB\nMemAvailable:     100 kB\n"}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, 100 * 1024),
        ({"proc/self/cgroup": "0::/\n"}, 100 * 1024),
        (  # version 2: the job's parent is the tighter one
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/memory.max": "50000\n",
                "sys/fs/cgroup/job/memory.current": "30000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 20000\ninactive_file 10000\n",
            },
            30000,
        ),
        (  # version 1, as containers see it: at the top of what is mounted
            {
                "proc/self/cgroup": "9:cpu:/x\n4:memory:/docker/1\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "40000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "41000\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            },
            0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "41000\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            },
            100 * 1024,
        ),
    ],
)
def test_the_tightest_limit_counts(groups, expected, tmp_path):
    write(tmp_path, MACHINE | groups)
    assert free_bytes(tmp_path) == expected


@pytest.mark.parametrize("files", [{}, {"proc/meminfo": "MemTotal: 999 kB\n", "proc/self/cgroup": "0::/\n"}])
def test_where_nobody_says_what_is_free(files, tmp_path):
    write(tmp_path, files)
    assert free_bytes(tmp_path) is None


def test_this_machine_says_it():
    assert free_bytes() > 2**20


def test_which_words_say_that_there_was_too_little():
    assert says_too_little(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."))
    assert says_too_little(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."))
    assert not says_too_little(RuntimeError("PytorchStreamReader failed reading zip archive"))
