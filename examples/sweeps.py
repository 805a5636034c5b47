"""
Sweeps on the engines people have
=================================

One function trains a network and returns what is wanted of it; each engine below calls it for all seeds and rates. The
numbers, and the bits of the parameters, are those of a loop. Each process uses its share of the cores for BLAS.

Run ``python examples/sweeps.py joblib`` (or ``loop``, ``processes``, ``dask``, ``ray``, ``optuna``), or ``mpiexec -n 3
python -m mpi4py.futures examples/sweeps.py mpi``.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import nnkit

JOBS = 2
TASKS = [(seed, rate) for seed in range(3) for rate in (0.003, 0.01)]
Result = tuple[float, str]


def score(seed: int, rate: float, epochs: int = 3) -> Result:
    """The test accuracy of a network of this seed and learning rate, and a digest of its parameters."""
    X, y, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)
    net = nnkit.Network([64, 16, 10], "relu", seed=seed)
    net.fit(X, y, epochs=epochs, optimizer=nnkit.Adam(rate), progress=False)
    return net.evaluate(X_test, y_test)["accuracy"], hashlib.sha256(net.parameters.flat.tobytes()).hexdigest()


@contextmanager
def share_of_cores(jobs: int = JOBS) -> Iterator[None]:
    """Let processes that start in this block use cores/jobs threads of BLAS each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(max(1, (os.cpu_count() or 1) // jobs))))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def loop() -> list[Result]:
    """One after the other."""
    return [score(*task) for task in TASKS]


def processes() -> list[Result]:
    """The standard library's processes."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with share_of_cores(), ProcessPoolExecutor(JOBS, get_context("spawn")) as pool:
        return list(pool.map(score, *zip(*TASKS, strict=True)))


def joblib() -> list[Result]:
    """joblib, whose processes start with few threads."""
    from joblib import Parallel, delayed, parallel_config  # python -m pip install joblib

    with parallel_config("loky", inner_max_num_threads=max(1, (os.cpu_count() or 1) // JOBS)):
        return list(Parallel(n_jobs=JOBS)(delayed(score)(*task) for task in TASKS))


def dask() -> list[Result]:
    """Dask's processes; on a cluster, a `dask.distributed.Client` before it is enough."""
    import dask  # python -m pip install dask

    with share_of_cores():
        return list(
            dask.compute(*[dask.delayed(score)(*task) for task in TASKS], scheduler="processes", num_workers=JOBS)
        )


def ray() -> list[Result]:
    """Ray, on this machine or, by `ray.init(address=...)`, on a cluster."""
    import ray  # python -m pip install ray

    ray.init(num_cpus=JOBS, include_dashboard=False, log_to_driver=False)  # a task gets one core, and one BLAS thread
    try:
        return list(ray.get([ray.remote(score).remote(*task) for task in TASKS]))
    finally:
        ray.shutdown()


def mpi() -> list[Result]:
    """The processes that mpiexec has started."""
    from mpi4py.futures import MPIPoolExecutor  # python -m pip install mpi4py mpich

    with MPIPoolExecutor() as pool:  # export OMP_NUM_THREADS=1 before mpiexec
        return list(pool.starmap(score, TASKS))


def optuna(trials: int = 8) -> tuple[float, float, int]:
    """The best rate and accuracy, and how many trainings were ended early, as others were better at that epoch."""
    import optuna  # python -m pip install optuna

    X, y, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)

    def objective(trial: optuna.Trial) -> float:
        def report(net: nnkit.Network, history: nnkit.History) -> bool:
            trial.report(history["validation_accuracy"][-1], history.epochs)
            return trial.should_prune()  # which ends the training

        rate = trial.suggest_float("rate", 1e-5, 0.1, log=True)
        net = nnkit.Network([64, 16, 10], "relu", seed=0)
        history = net.fit(
            X, y, epochs=4, optimizer=nnkit.Adam(rate), validation_data=(X_test, y_test), callbacks=[report],
            progress=False,
        )  # fmt: skip
        if history.stopped == "callback":
            raise optuna.TrialPruned
        return history["validation_accuracy"][-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=trials)
    ended = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    return study.best_params["rate"], study.best_value, ended


ENGINES: dict[str, Callable[[], list[Result]]] = {
    "loop": loop, "processes": processes, "joblib": joblib, "dask": dask, "ray": ray, "mpi": mpi
}  # fmt: skip

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "loop"
    if name == "optuna":
        rate, accuracy, ended = optuna()
        print(f"rate {rate:.4f}: accuracy {accuracy:.3f}; {ended} trainings ended early")
    else:
        for (seed, rate), (accuracy, digest) in zip(TASKS, ENGINES[name](), strict=True):
            print(f"seed {seed}, rate {rate:g}: accuracy {accuracy:.3f}, parameters {digest[:12]}")
