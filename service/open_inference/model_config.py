"""What callers of the Open Inference Protocol are told about its models."""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from service.model.repository import Model
from service.model.statistics import Duration, Requests
from service.model.versions import Version
from service.open_inference.doors import FILES_DOOR, LAYERS_DOOR, Door, Spec
from service.runs.queueing import ORDINARY_PRIORITY, PRIORITY_LEVELS

PLATFORM = "onnxruntime_onnx"
_CONFIG_TYPES = {"UINT8": pb.TYPE_UINT8, "FP32": pb.TYPE_FP32, "BYTES": pb.TYPE_STRING}


def metadata(name: str, door: Door, versions: list[str]) -> pb.ModelMetadataResponse:
    """The tensors of the model that callers call this, with -1 for the number of images."""

    def described(tensor: str, spec: Spec) -> pb.ModelMetadataResponse.TensorMetadata:
        datatype, shape = spec
        return pb.ModelMetadataResponse.TensorMetadata(name=tensor, datatype=datatype, shape=(-1, *shape))

    return pb.ModelMetadataResponse(
        name=name,
        versions=versions,
        platform=PLATFORM,
        inputs=[described("image", door.input)],
        outputs=[described(output, spec) for output, spec in door.outputs.items()],
    )


def config(
    name: str, door: Door, model: Model, *, policy: str, max_batch_images: int, max_run_images: int
) -> pb.ModelConfig:
    """How a model is run.

    Args:
        name: What callers call it.
        door: The model as its callers see it.
        model: The version they get.
        policy: As for `repository.select`.
        max_batch_images: Most images in one request.
        max_run_images: Most images in one run.
    """
    instances = pb.ModelInstanceGroup(name=f"{name}_0", kind=pb.ModelInstanceGroup.KIND_CPU, count=model.runs_at_once)
    if model.gpu is not None:
        instances.kind, instances.gpus[:] = pb.ModelInstanceGroup.KIND_GPU, [model.gpu]
    facts = {
        "sha256": model.sha256,
        "network": model.network,
        "accuracy": str(model.accuracy),
        "trained_on": model.trained_on,
        "reject_threshold": str(model.reject_threshold),
        "labels": ",".join(map(str, range(10))),
        "providers_asked": ",".join(model.providers_asked),
        "providers_got": ",".join(model.providers_got),
    }
    # An element of a BYTES tensor has no shape, and perf_analyzer takes none: so the whole of it is described.
    max_batch_size, batch = (0, (-1,)) if door.takes_files else (max_batch_images, ())
    datatype, shape = door.input
    return pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend="onnxruntime",
        version_policy=_version_policy(policy),
        max_batch_size=max_batch_size,
        input=[pb.ModelInput(name="image", data_type=_CONFIG_TYPES[datatype], dims=(*batch, *shape))],
        output=[
            pb.ModelOutput(name=output, data_type=_CONFIG_TYPES[datatype], dims=(*batch, *shape))
            for output, (datatype, shape) in door.outputs.items()
        ],
        instance_group=[instances],
        default_model_filename="model.onnx",
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=[max_run_images],
            priority_levels=PRIORITY_LEVELS,
            default_priority_level=ORDINARY_PRIORITY,
            default_queue_policy=pb.ModelQueuePolicy(allow_timeout_override=True),
        ),
        parameters={fact: pb.ModelParameter(string_value=value) for fact, value in facts.items()},
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )


def requests(door: Door, version: Version) -> Requests:
    """The account of what a version of a model did."""
    if door.name == LAYERS_DOOR:
        return version.statistics.layers
    return version.statistics.files if door is FILES_DOOR else version.statistics.pixels


def statistics(door: Door, version: Version) -> pb.ModelStatistics:
    """What a version of a model did since it was loaded."""
    of = requests(door, version)
    return pb.ModelStatistics(
        name=door.name,
        version=version.model.version,
        last_inference=int(of.last * 1000),
        inference_count=of.images,
        execution_count=of.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(of.success),
            fail=_duration(of.fail),
            queue=_duration(of.queue),
            compute_input=_duration(of.input),
            compute_infer=_duration(of.infer),
            compute_output=_duration(of.output),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=images, compute_infer=_duration(duration))
            for images, duration in sorted(of.batches.items())
        ],
    )


def _version_policy(policy: str) -> pb.ModelVersionPolicy:
    if policy == "all":
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    if policy.startswith("latest:"):
        latest = pb.ModelVersionPolicy.Latest(num_versions=int(policy.removeprefix("latest:")))
        return pb.ModelVersionPolicy(latest=latest)
    specific = pb.ModelVersionPolicy.Specific(versions=[int(number) for number in policy.split(",")])
    return pb.ModelVersionPolicy(specific=specific)


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=round(duration.seconds * 1e9))
