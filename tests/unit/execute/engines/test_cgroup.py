"""Memory groups against trees of files as the kernel lays them out, and the real one where it lets us."""

import pytest

from ftbench.execute.engines.cgroup import CgroupUnavailable, MemoryCgroup, processor_quota

V1 = "24 23 0:21 {root} {point} rw - cgroup cgroup rw,memory\n"
V2 = "25 23 0:22 {root} {point} rw - cgroup2 cgroup2 rw\n"


def proc(folder, cgroup, mounts):
    folder.mkdir()
    (folder / "cgroup").write_text(cgroup)
    (folder / "mountinfo").write_text("20 1 8:1 / / rw - ext4 /dev/vda rw\n" + mounts)
    return folder


def version_1(tmp_path, root="/", own="/a/b"):
    point = tmp_path / "memory"
    group = point / own.removeprefix(root).lstrip("/")
    group.mkdir(parents=True)
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    lines = f"9:cpu:/x\n4:memory:{own}\n0::/\n"
    return proc(tmp_path / "proc", lines, V1.format(root=root, point=point)), group


def version_2(tmp_path, offered="cpu memory pids"):
    point = tmp_path / "unified"
    group = point / "user"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text(offered + "\n")
    (group / "cgroup.subtree_control").write_text("")
    (group / "memory.events").write_text("low 0\nmax 7\noom 2\noom_kill 2\n")
    return proc(tmp_path / "proc", "0::/user\n", V2.format(root="/", point=point)), group


def test_version_1(tmp_path):
    files, group = version_1(tmp_path)
    own = MemoryCgroup.own(files)
    assert (own.path, own.version, own.oom_kills()) == (group, 1, 3)


def test_a_mount_that_shows_a_part_of_the_tree_as_containers_do(tmp_path):
    files, group = version_1(tmp_path, root="/a", own="/a/b")
    assert MemoryCgroup.own(files).path == group


def test_version_2(tmp_path):
    files, group = version_2(tmp_path)
    own = MemoryCgroup.own(files)
    assert (own.path, own.version, own.oom_kills()) == (group, 2, 2)


def test_version_2_limits_memory_and_swap_and_kills_as_one(tmp_path, monkeypatch):
    files, group = version_2(tmp_path)
    real = type(group).mkdir

    def as_the_kernel_does(path, *args, **kwargs):
        real(path, *args, **kwargs)
        (path / "memory.swap.max").write_text("max")

    monkeypatch.setattr(type(group), "mkdir", as_the_kernel_does)
    made = MemoryCgroup.own(files).make(2**30)
    assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert (made.path / "memory.max").read_text() == str(2**30)
    assert (made.path / "memory.swap.max").read_text() == "0"
    assert (made.path / "memory.oom.group").read_text() == "1"
    assert made.path.parent == group


@pytest.mark.parametrize("offered", ["", "hugetlb", "cpu pids"])
def test_no_memory_controller_no_group(tmp_path, offered):
    files, _ = version_2(tmp_path, offered)
    with pytest.raises(CgroupUnavailable, match="no control group"):
        MemoryCgroup.own(files)


def test_no_proc_no_group(tmp_path):
    with pytest.raises(CgroupUnavailable):
        MemoryCgroup.own(tmp_path)


def test_a_group_that_may_not_be_made(tmp_path):
    files, group = version_1(tmp_path)
    own = MemoryCgroup.own(files)
    group.joinpath("memory.oom_control").unlink()
    group.rmdir()
    with pytest.raises(CgroupUnavailable):
        own.make(2**30)
    assert own.oom_kills() is None


def test_a_real_group_where_there_is_one():
    try:
        made = MemoryCgroup.own().make(2**28)
    except CgroupUnavailable:
        return
    assert made.oom_kills() == 0
    made.remove()
    assert not made.path.exists()
    made.remove()


def test_the_least_limit_of_this_group_and_those_around_it(tmp_path):
    files, group = version_2(tmp_path)
    own = MemoryCgroup.own(files)
    assert own.limit_bytes() is None
    (group / "memory.max").write_text("max\n")
    assert own.limit_bytes() is None
    (group.parent / "memory.max").write_text(f"{3 * 2**30}\n")
    assert own.limit_bytes() == 3 * 2**30
    (group / "memory.max").write_text(f"{2**30}\n")
    assert own.limit_bytes() == 2**30


def test_version_1_writes_a_number_of_pages_for_no_limit(tmp_path):
    files, group = version_1(tmp_path)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert MemoryCgroup.own(files).limit_bytes() is None
    (group.parent / "memory.limit_in_bytes").write_text("1073741824\n")
    assert MemoryCgroup.own(files).limit_bytes() == 2**30


@pytest.mark.parametrize(
    ("inner", "outer", "processors"),
    [
        ("max 100000", "max 100000", None),
        ("150000 100000", "max 100000", 1.5),
        ("400000 100000", "250000 100000", 2.5),
    ],
)
def test_the_quota_of_processors_of_version_2(tmp_path, inner, outer, processors):
    files, group = version_2(tmp_path)
    (group / "cpu.max").write_text(inner + "\n")
    (group.parent / "cpu.max").write_text(outer + "\n")
    assert processor_quota(files) == processors


@pytest.mark.parametrize(("quota", "processors"), [("-1", None), ("50000", 0.5)])
def test_the_quota_of_processors_of_version_1(tmp_path, quota, processors):
    group = tmp_path / "cpu" / "x"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(quota + "\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    mount = V1.replace("rw,memory", "rw,cpu,cpuacct").format(root="/", point=tmp_path / "cpu")
    files = proc(tmp_path / "proc", "9:cpu,cpuacct:/x\n", mount)
    assert processor_quota(files) == processors


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert processor_quota(tmp_path) is None
