"""CPU shares of emulated hosts: one group per terminal, cgroup v1 or v2, whichever this machine has."""

from __future__ import annotations

from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 20_000  # a terminal at its limit pauses for less than this: queries wait in milliseconds
LONG_PERIOD_US = 100_000  # for shares of which a short period holds less than the kernel's least quota
LEAST_QUOTA_US = 1000
PREFIX = "daitn-"


def controller_root(root: Path = CGROUP_ROOT) -> Path | None:
    """Return where groups with a CPU limit can be made: v1's ``cpu`` tree or v2's root; None when neither is there."""
    if (root / "cpu" / "cpu.cfs_quota_us").exists() or (root / "cpu" / "cgroup.procs").exists():
        return root / "cpu"
    controllers = root / "cgroup.controllers"
    return root if controllers.exists() and "cpu" in controllers.read_text().split() else None


def create_group(run_id: str, host: str, cpu_share: float, root: Path = CGROUP_ROOT) -> Path | None:
    """Make ``daitn-<run>/<host>`` with a limit of ``cpu_share`` cores; processes join by its ``cgroup.procs``.

    None where this machine has no CPU controller that we may use: the share is then not emulated (``missing_reason``).
    """
    base = controller_root(root)
    if base is None:
        return None
    group = base / f"{PREFIX}{run_id}" / host
    period = PERIOD_US if cpu_share * PERIOD_US >= LEAST_QUOTA_US else LONG_PERIOD_US
    quota = max(LEAST_QUOTA_US, round(cpu_share * period))
    try:
        group.mkdir(parents=True, exist_ok=True)
        if base.name == "cpu":
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            for parent in (base, group.parent):
                (parent / "cgroup.subtree_control").write_text("+cpu")
            (group / "cpu.max").write_text(f"{quota} {period}")
    except OSError:
        remove_groups(run_id, root)
        return None
    return group


def create_top(name: str, root: Path = CGROUP_ROOT) -> Path | None:
    """Make ``daitn-<name>``, below which a sandbox makes the groups of its runs; None as ``create_group``."""
    base = controller_root(root)
    if base is None:
        return None
    top = base / f"{PREFIX}{name}"
    try:
        top.mkdir(parents=True, exist_ok=True)
        for parent in (base, top) if base.name != "cpu" else ():
            (parent / "cgroup.subtree_control").write_text("+cpu")
    except OSError:
        remove_groups(name, root)
        return None
    return top


def missing_reason(root: Path = CGROUP_ROOT) -> str:
    """Return why CPU shares are not emulated here, "" when they are."""
    if controller_root(root) is None:
        return f"CPU shares are not emulated: {root} has no cpu controller (cgroup v1 cpu, or v2 with cpu enabled)"
    return ""


def run_groups(root: Path = CGROUP_ROOT) -> dict[str, Path]:
    """Return the groups of all runs that exist: {run id: path}."""
    base = controller_root(root)
    return {path.name.removeprefix(PREFIX): path for path in base.glob(f"{PREFIX}*")} if base else {}


def remove_groups(run_id: str, root: Path = CGROUP_ROOT) -> bool:
    """Remove a run's groups; True when none is left (a group with a living process in it stays)."""
    base = controller_root(root)
    top = base / f"{PREFIX}{run_id}" if base else None
    if top is None or not top.is_dir():
        return True
    try:
        for group in sorted((g for g in top.rglob("*") if g.is_dir()), reverse=True):  # what is inside comes first
            group.rmdir()
        top.rmdir()
    except OSError:
        return False
    return True
