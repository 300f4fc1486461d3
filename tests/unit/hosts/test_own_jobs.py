"""What an owner keeps of its jobs has a bound: in jobs, in bytes of models."""

from __future__ import annotations

from pathlib import Path

from hosts.roles.own_jobs import LOG_FILE, MODEL_FILE, OwnJob, OwnJobs
from packets.messages import JobSpec

SPEC = JobSpec(task="vignettes")


def home(jobs: OwnJobs, object_id: int, size: int) -> Path:
    job = OwnJob(SPEC)
    jobs.put(object_id, job)
    return jobs.store(object_id, job, bytes(size), [{"visit": 0}])


def test_the_oldest_job_is_forgotten_with_its_folder(tmp_path: Path) -> None:
    jobs = OwnJobs(tmp_path, kept=2)
    folders = [home(jobs, i, 10) for i in (1, 2, 3)]
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert jobs.get(1) is None and jobs.get(3) is not None and str(jobs) == "2, 3"


def test_models_have_a_bound_together_and_the_newest_stays(tmp_path: Path) -> None:
    jobs = OwnJobs(tmp_path, most_bytes=100)
    jobs.put(9, OwnJob(SPEC))  # under way: it costs nothing
    folders = [home(jobs, i, 40) for i in (1, 2, 3)]
    assert [folder.exists() for folder in folders] == [False, True, True]
    large = home(jobs, 4, 300)
    assert [folder.exists() for folder in (*folders, large)] == [False, False, False, True]
    assert jobs.get(9) is not None
    job = jobs.get(4)
    assert job is not None and job.model == large / MODEL_FILE and job.model.read_bytes() == bytes(300)
    assert (tmp_path / LOG_FILE).exists() and (tmp_path / MODEL_FILE).read_bytes() == bytes(300)


def test_many_jobs_are_told_in_few_words(tmp_path: Path) -> None:
    jobs = OwnJobs(tmp_path)
    assert str(jobs) == "none yet" and jobs.get("7") is None
    for number in range(20):
        jobs.put(number, OwnJob(SPEC))
    assert str(jobs) == "12, 13, 14, 15, 16, 17, 18, 19 and 12 more"
