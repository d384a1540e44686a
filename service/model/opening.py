"""From a file to a model that runs, as the settings say."""

from __future__ import annotations

from collections.abc import Callable

from service.model import repository
from service.model.devices import GpuOptions
from service.model.repository import Model, ModelFile
from service.model.runtime import Session
from service.model.trial import Trials
from service.settings import Settings


def open_model(settings: Settings, file: ModelFile, trials: Trials | None, on_lost: Callable[[], None]) -> Model:
    """Open a model's file, and make sure that it is what its manifest says.

    Args:
        settings: What runs it, and how.
        file: Where it is.
        trials: Run it in a process of its own first; None where nothing could be harmed by its end.
        on_lost: Called when the device it runs on is gone.

    Raises:
        ModelUnusable: It cannot be served.
        DeviceMissing: What is to run it is not there.
    """
    gpu = GpuOptions(
        precision=settings.gpu_precision,
        cudnn_search=settings.gpu_cudnn_search,
        arena=settings.gpu_arena,
        memory_mib=settings.gpu_memory_mib,
        graphs=settings.gpu_graphs == "on",
        tensorrt_cache_dir=settings.tensorrt_cache_dir,
    )

    def make_session(model: bytes) -> Session:
        if trials:
            trials.run(model, max_run_images=settings.max_run_images)
        return Session(
            model,
            device=settings.device,
            threads=settings.threads,
            max_run_images=settings.max_run_images,
            on_missing=settings.on_device_missing,
            gpu=gpu,
            on_lost=on_lost,
        )

    return repository.load(file, make_session)
