from benchmarks.drills.findings import Drill

DRILLS: tuple[Drill, ...] = ()
