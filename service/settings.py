"""Every setting of the server, once: name with its unit, default, check and help.

A field of `Settings` is a flag (`--max-batch-images`) and an environment
variable (`DIGITSERVE_MAX_BATCH_IMAGES`); a flag wins. This module knows
nothing of what the settings are used for.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from service.errors import InvalidSetting
from service.setting_checks import (
    AUTO,
    PROFILES,
    Auto,
    Check,
    between,
    device,
    name_in_addresses,
    not_empty,
    one_of,
    or_auto,
    version_policy,
)
from service.setting_texts import flag, from_variable, names, parse, variable

MIB = 1024 * 1024


def bundled_models() -> Path:
    """Where the released model lies: beside this file in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return next((path for path in (package / "models", package.parent / "models") if path.is_dir()), Path("models"))


def _setting(default: Any, group: str, help: str, check: Check | None = None) -> Any:
    metadata = {"group": group, "help": help, "check": check}
    return field(default_factory=default if callable(default) else lambda: default, metadata=metadata)


PORT = between(0, 65535)
AGE = or_auto(between(1, 86400))
# Above it, Pillow warns of a decompression bomb and then refuses by itself.
PILLOWS_MAX_PIXELS = 89_478_485


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the server runs; checked when made.

    Raises:
        InvalidSetting: A value is out of its range or contradicts another.
    """

    host: str = _setting("127.0.0.1", "addresses", "address to listen on; 0.0.0.0 for every interface", not_empty)
    grpc_port: int = _setting(8001, "addresses", "gRPC port; 0 takes a free one", PORT)
    http_port: int = _setting(8000, "addresses", "HTTP port of POST /v1/classify; 0 takes a free one", PORT)
    ops_port: int = _setting(8002, "addresses", "port of /metrics, /livez and /readyz; 0 takes a free one", PORT)

    profile: str = _setting(
        "default",
        "access",
        "default, or production: no reflection, no page, no loading of models by calls, no native transport; "
        "who asks for them is refused",
        one_of(*PROFILES),
    )
    reflection: str = _setting(
        "on", "access", "on or off: whether callers may ask which calls there are", one_of("on", "off")
    )
    page: str = _setting(
        "on", "access", "on or off: the page at / of the HTTP port, on which people draw digits", one_of("on", "off")
    )
    tls_cert_file: str = _setting("", "access", "PEM certificates of the server; every port speaks TLS then")
    tls_key_file: str = _setting("", "access", "PEM key that belongs to them: RSA, P-256 or P-384")
    tls_client_ca_file: str = _setting(
        "", "access", "PEM authorities; callers need a certificate of one, probes of the operations port excepted"
    )
    token_file: str = _setting(
        "", "access", "file with a token a line; callers need one of them, health checks excepted"
    )

    transport: str = _setting(
        "auto",
        "process",
        "gRPC implementation: grpcio, native (faster; the extra `native`), or auto: native where it is installed and "
        "has all that is asked for",
        one_of("auto", "grpcio", "native"),
    )
    workers: int | Auto = _setting(
        1, "process", "server processes on the same ports; auto: as many as there is room for", or_auto(between(1, 256))
    )

    models_dir: Path = _setting(
        bundled_models, "model", "folder with digits/<version>/model.onnx, or with the model.onnx itself"
    )
    model_versions: str = _setting(
        "latest:1", "model", "versions to serve: latest:N, all, or numbers such as 1,3", version_policy
    )
    model_name: str = _setting(
        "digits",
        "model",
        "what callers of the Open Inference Protocol call the model; the one for image files is NAME_image",
        name_in_addresses,
    )
    model_control: str = _setting(
        "none",
        "model",
        "how versions change while serving: none, poll (watch the folder), or explicit (by RepositoryModelLoad "
        "and RepositoryModelUnload)",
        one_of("none", "poll", "explicit"),
    )
    log_format: str = _setting("text", "log", "lines of text, or of json", one_of("text", "json"))
    log_request_share: float = _setting(
        0.0, "log", "share of the requests that get a line on standard output, 0 to 1", between(0, 1)
    )
    tracing: str = _setting(
        "off", "log", "on: spans of OpenTelemetry for a collector; OTEL_* variables say the rest", one_of("off", "on")
    )
    triton_metrics: str = _setting(
        "off", "metrics", "on: show the statistics also under Triton's names, nv_inference_*", one_of("off", "on")
    )
    model_poll_s: float = _setting(15.0, "model", "seconds between two looks at the folder", between(0.05, 86400))
    device: str = _setting(
        "auto",
        "model",
        "what runs the model: cpu, cuda, cuda:N (the GPU of that number), tensorrt, or auto: cuda where it works, "
        "else cpu",
        device,
    )
    on_device_missing: str = _setting(
        "fail",
        "model",
        "what to do where --device is not there or fails: fail (do not start, or end), or fallback to the CPU, which "
        "the log and digitserve_device_fallback tell",
        one_of("fail", "fallback"),
    )
    threads: int = _setting(
        1, "model", "threads ONNX Runtime uses inside one run, at most a worker's part of the cores", between(1, 256)
    )

    gpu_precision: str = _setting(
        "fp32",
        "gpu",
        "fp32, tf32 (products of factors rounded to 10 bits) or, with tensorrt, fp16; answers agree with the CPU's "
        "only in fp32",
        one_of("fp32", "tf32", "fp16"),
    )
    gpu_cudnn_search: str = _setting(
        "heuristic",
        "gpu",
        "how cuDNN chooses its convolutions: heuristic, exhaustive (tries all, a slower start) or default",
        one_of("heuristic", "exhaustive", "default"),
    )
    gpu_memory_mib: int = _setting(0, "gpu", "MiB of a GPU's memory one session may take; 0: all", between(0, 1 << 20))
    gpu_arena: str = _setting(
        "same-as-requested",
        "gpu",
        "how its memory is taken: same-as-requested, or next-power-of-two",
        one_of("same-as-requested", "next-power-of-two"),
    )
    gpu_graphs: str = _setting(
        "off",
        "gpu",
        "on: record the run of every batch size as a CUDA graph and replay it; with cuda, and a model that stays",
        one_of("off", "on"),
    )
    tensorrt_cache_dir: str = _setting(
        "", "gpu", "folder for the engines that TensorRT builds; without it, each start builds them anew"
    )

    max_run_images: int = _setting(32, "batching", "most images in one run of the model", between(1, 4096))
    max_queue_images: int = _setting(
        2048, "batching", "images that may wait; more are refused with RESOURCE_EXHAUSTED", between(1, 1_000_000)
    )
    max_queue_bytes: int = _setting(
        64 * MIB, "batching", "bytes of large requests in progress, of gRPC and of HTTP each", between(MIB, 1 << 40)
    )
    max_run_s: float = _setting(10.0, "batching", "seconds until a run of the model is ended", between(0.1, 3600))
    max_call_s: float = _setting(60.0, "batching", "seconds that a call without a deadline gets", between(0.1, 3600))
    decode_threads: int | Auto = _setting(
        AUTO, "batching", "threads that read image files; auto: a worker's part of the cores", or_auto(between(1, 256))
    )
    stream_window_images: int = _setting(
        64, "batching", "images of one ClassifyStream call that are worked on at the same time", between(1, 4096)
    )

    max_image_bytes: int = _setting(4 * MIB, "limits", "bytes of one image", between(784, 1 << 30))
    max_image_pixels: int = _setting(
        16_000_000, "limits", "width times height of one image", between(784, PILLOWS_MAX_PIXELS)
    )
    max_batch_images: int = _setting(1024, "limits", "images in one ClassifyBatch call", between(1, 65536))
    max_message_bytes: int = _setting(8 * MIB, "limits", "bytes of one request message", between(1024, (1 << 30) - 1))
    # By default they ask for nothing that the native transport lacks.
    max_connections: int | Auto = _setting(
        AUTO, "limits", "connections of gRPC and of HTTP; auto: 1000, with native of HTTP", or_auto(between(1, 100_000))
    )
    connection_age_s: float | Auto = _setting(
        AUTO, "limits", "until a gRPC connection is made anew, to find new servers; auto: 120, never with native", AGE
    )
    connection_grace_s: float | Auto = _setting(
        AUTO, "limits", "seconds that the calls on such a connection get to finish; auto: 600", AGE
    )

    drain_delay_s: float = _setting(
        0.0,
        "shutdown",
        "seconds to keep serving, as NOT_SERVING, after SIGTERM; give balancers time to see it",
        between(0, 3600),
    )
    drain_timeout_s: float = _setting(
        20.0, "shutdown", "seconds that calls in progress get to finish after that", between(0, 3600)
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            check: Check | None = spec.metadata["check"]
            value = getattr(self, spec.name)
            if check and (problem := check(value)):
                raise InvalidSetting(f"{names(spec.name)}: {problem}, not {value!r}")
        for name, allowed in PROFILES[self.profile].items():
            if (value := getattr(self, name)) not in allowed:
                raise InvalidSetting(
                    f"{names(name)} must be {' or '.join(allowed)} with --profile {self.profile}, not {value!r}"
                )
        for one, other in (("grpc_port", "http_port"), ("grpc_port", "ops_port"), ("http_port", "ops_port")):
            if (port := getattr(self, one)) and port == getattr(self, other):
                raise InvalidSetting(f"{names(one)} and {names(other)} are both {port}; each needs a port of its own")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise InvalidSetting(f"{names('tls_cert_file')} and {names('tls_key_file')} need each other")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise InvalidSetting(f"{names('tls_client_ca_file')} needs {names('tls_cert_file')}")
        if self.max_batch_images > self.max_queue_images:
            raise InvalidSetting(
                f"{names('max_batch_images')} is {self.max_batch_images}, more than "
                f"{names('max_queue_images')} of {self.max_queue_images}: a full batch could never be accepted"
            )
        if self.max_image_bytes >= self.max_message_bytes:
            raise InvalidSetting(
                f"{names('max_image_bytes')} is {self.max_image_bytes}; it must be less than "
                f"{names('max_message_bytes')} of {self.max_message_bytes}: a message holds an image and its envelope"
            )
        if self.gpu_precision == "fp16" and self.device != "tensorrt":
            raise InvalidSetting(f"{names('gpu_precision')} is fp16; that needs {names('device')} tensorrt")
        if self.gpu_graphs == "on" and (self.device == "tensorrt" or self.model_control != "none"):
            # While a run is recorded, nothing else may happen on the GPU: no other model can be loaded meanwhile.
            raise InvalidSetting(
                f"{names('gpu_graphs')} is on; that needs {names('device')} cuda and {names('model_control')} none, "
                f"not {self.device} and {self.model_control}"
            )

    def changed(self, *which: str) -> list[str]:
        """The flags of those settings, of the named ones, that are not at their default."""
        defaults = type(self)()
        return [flag(name) for name in which if getattr(self, name) != getattr(defaults, name)]

    def texts(self) -> dict[str, str]:
        """What `load` makes these settings of, as flags."""
        return {spec.name: str(getattr(self, spec.name)) for spec in fields(self)}

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add a flag for every setting; a flag that is not given stays unset."""
        defaults = cls()
        groups: dict[str, Any] = {}
        for spec in fields(cls):
            title = spec.metadata["group"]
            group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
            default = "none" if getattr(defaults, spec.name) == "" else getattr(defaults, spec.name)
            group.add_argument(
                flag(spec.name),
                default=argparse.SUPPRESS,
                metavar="SECONDS" if spec.name.endswith("_s") else spec.name.rsplit("_", 1)[-1].upper(),
                help=f"{spec.metadata['help']} (default: {default}; {variable(spec.name)})",
            )

    @classmethod
    def load(cls, flags: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
        """Settings from flags, then environment variables, then defaults.

        Args:
            flags: Texts by field name, only of the flags that were given.
            environ: Environment variables, such as `os.environ`.

        Raises:
            InvalidSetting: A value cannot be read or is out of range.
        """
        kinds = get_type_hints(cls)
        profile = flags.get("profile", environ.get(variable("profile"), ""))
        values: dict[str, Any] = {name: allowed[0] for name, allowed in PROFILES.get(profile, {}).items()}
        for spec in fields(cls):
            for source, text in ((flag(spec.name), flags.get(spec.name)), from_variable(environ, spec.name)):
                if text is not None:
                    values[spec.name] = parse(source, text, kinds[spec.name])
                    break
        return cls(**values)
