"""Settings: flags, environment, defaults, checks, help."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from service.errors import InvalidSetting
from service.settings import Settings, bundled_models


def test_defaults_listen_on_this_machine_only() -> None:
    settings = Settings.load({}, {})
    assert settings.host == "127.0.0.1"
    assert (settings.http_port, settings.grpc_port, settings.ops_port) == (8000, 8001, 8002)
    assert settings.models_dir == bundled_models()


def test_a_flag_wins_over_its_variable_and_the_variable_over_the_default() -> None:
    environ = {"DIGITSERVE_GRPC_PORT": "9001", "DIGITSERVE_DRAIN_DELAY_S": "2.5", "DIGITSERVE_MODELS_DIR": "/models"}
    settings = Settings.load({"grpc_port": "9100"}, environ)
    assert settings.grpc_port == 9100
    assert settings.drain_delay_s == 2.5
    assert settings.models_dir == Path("/models")


@pytest.mark.parametrize(
    ("flags", "environ", "text"),
    [
        ({"grpc_port": "eighty"}, {}, "--grpc-port: must be a whole number, not 'eighty'"),
        ({}, {"DIGITSERVE_GRPC_PORT": "x"}, "DIGITSERVE_GRPC_PORT: must be a whole number, not 'x'"),
        ({"drain_delay_s": "soon"}, {}, "--drain-delay-s: must be a number, not 'soon'"),
        (
            {"drain_delay_s": "nan"},
            {},
            "--drain-delay-s (DIGITSERVE_DRAIN_DELAY_S): must be between 0 and 3600, not nan",
        ),
        ({"grpc_port": "65536"}, {}, "--grpc-port (DIGITSERVE_GRPC_PORT): must be between 0 and 65535, not 65536"),
        (
            {"grpc_port": "8000"},
            {},
            "--grpc-port (DIGITSERVE_GRPC_PORT) and --http-port (DIGITSERVE_HTTP_PORT) are both 8000; each needs",
        ),
        ({"ops_port": "8001"}, {}, "--grpc-port (DIGITSERVE_GRPC_PORT) and --ops-port (DIGITSERVE_OPS_PORT) are both"),
        ({"http_port": "9", "ops_port": "9"}, {}, "--http-port (DIGITSERVE_HTTP_PORT) and --ops-port (DIGITSERVE_OPS"),
        ({"device": "tpu"}, {}, "--device (DIGITSERVE_DEVICE): must be auto, cpu, cuda, cuda:N or tensorrt, not 'tpu'"),
        ({"device": "cuda:x"}, {}, "must be auto, cpu, cuda, cuda:N or tensorrt, not 'cuda:x'"),
        ({"on_device_missing": "ignore"}, {}, "must be one of fail, fallback, not 'ignore'"),
        ({"gpu_precision": "fp16", "device": "cuda"}, {}, "is fp16; that needs --device (DIGITSERVE_DEVICE) tensorrt"),
        ({"gpu_graphs": "on", "device": "cuda", "model_control": "poll"}, {}, "not cuda and poll"),
        ({"gpu_graphs": "on", "device": "tensorrt"}, {}, "that needs --device (DIGITSERVE_DEVICE) cuda and"),
        ({"host": ""}, {}, "--host (DIGITSERVE_HOST): must not be empty, not ''"),
        ({"model_versions": "newest"}, {}, "must be latest:N, all, or numbers such as 1,3, not 'newest'"),
        ({"workers": "0"}, {}, "--workers (DIGITSERVE_WORKERS): must be between 1 and 256, not 0"),
        ({"workers": "many"}, {}, "--workers: must be a whole number or auto, not 'many'"),
        ({"max_connections": "0"}, {}, "--max-connections (DIGITSERVE_MAX_CONNECTIONS): must be between 1 and 100000"),
        ({"connection_age_s": "old"}, {}, "--connection-age-s: must be a number or auto, not 'old'"),
        ({"threads": "auto"}, {}, "--threads: must be a whole number, not 'auto'"),
        ({"max_batch_images": "4096"}, {}, "a full batch could never be accepted"),
        ({"max_message_bytes": "1073741824"}, {}, "1073741823"),
        ({"max_message_bytes": "1048576"}, {}, "a message holds an image and its envelope"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(
    flags: dict[str, str], environ: dict[str, str], text: str
) -> None:
    with pytest.raises(InvalidSetting) as error:
        Settings.load(flags, environ)
    assert text in str(error.value)


def test_several_ports_may_be_free_ones() -> None:
    settings = Settings.load({"grpc_port": "0", "http_port": "0", "ops_port": "0"}, {})
    assert (settings.grpc_port, settings.http_port, settings.ops_port) == (0, 0, 0)


def test_help_names_every_flag_its_default_and_its_variable() -> None:
    parser = argparse.ArgumentParser()
    Settings.add_flags(parser)
    text = " ".join(parser.format_help().split())
    defaults = Settings()
    for field in dataclasses.fields(Settings):
        assert f"--{field.name.replace('_', '-')} " in text
        default = getattr(defaults, field.name)
        assert f"default: {'none' if default == '' else default}; DIGITSERVE_{field.name.upper()})" in text


def test_settings_travel_as_texts() -> None:
    """As a supervisor gives them to its workers."""
    settings = Settings(workers=2, decode_threads="auto", connection_age_s=1.5, models_dir=Path("/models"))
    assert Settings.load(settings.texts(), {}) == settings
    assert Settings.load(Settings.load({"profile": "production"}, {}).texts(), {}).reflection == "off"
