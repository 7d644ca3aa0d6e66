"""The memory that there is, as the system's files say it."""

import pytest

from autoprune.run.forecast.memory import available_bytes, resident_bytes

GIB = 2**30


@pytest.fixture
def root(tmp_path):
    """Makes the files of a machine with 8 GiB available, and others by their paths."""

    def make(**files):
        contents = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n", **files}
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def test_without_groups_the_machine_says_what_is_available(root):
    assert available_bytes(root()) == 8 * GIB


def test_a_group_of_version_2_limits_it_and_files_in_memory_are_dropped_where_needed(root):
    own = "sys/fs/cgroup/user/job"
    files = {
        "proc/self/cgroup": "0::/user/job\n",
        f"{own}/memory.max": f"{4 * GIB}\n",
        f"{own}/memory.current": f"{3 * GIB}\n",
        f"{own}/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
    }
    assert available_bytes(root(**files)) == GIB + GIB // 2


def test_a_group_without_a_limit_does_not_limit_it(root):
    own = "sys/fs/cgroup"
    files = {"proc/self/cgroup": "0::/\n", f"{own}/memory.max": "max\n", f"{own}/memory.current": f"{3 * GIB}\n"}
    assert available_bytes(root(**files)) == 8 * GIB


def test_a_group_of_version_1_is_found_where_a_container_shows_it_as_the_whole(root):
    own = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n",
        f"{own}/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{own}/memory.usage_in_bytes": f"{3 * GIB}\n",
    }
    assert available_bytes(root(**files)) == 0


def test_this_process_holds_some_memory_and_there_is_some_left():
    assert resident_bytes() > 10 * 2**20
    assert available_bytes() > 0
