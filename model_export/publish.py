"""Puts a verified model where the service looks for it, with what belongs to it.

models/digits/<version>/model.onnx      the model, its accuracy now in its metadata
manifest.json   its sha256 and golden samples; the service compares both before it serves
checkpoint.pt   what it was exported from
training.json   how each epoch of its training went
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from model_export.checkpoint import save_checkpoint, write_atomically
from model_export.export import NAME, VERSION, with_facts

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.checkpoint import Checkpoint
    from model_export.verify import Golden, Verification


def publish(checkpoint: Checkpoint, model: bytes, result: Verification, log: bytes, models_dir: Path) -> Path:
    """Write the files of the model that was verified.

    Its graph is the very one that was measured. Exporting the published checkpoint gives the published model again,
    byte for byte. Each file is there whole or not at all; the model, which a server may be watching for, comes last.

    Args:
        checkpoint: What the model was exported from.
        model: The ONNX file's content.
        result: What `verify` found.
        log: The content of training.json.
        models_dir: The folder above "digits".

    Returns:
        The path of the model.
    """
    folder = models_dir / NAME / VERSION
    published = checkpoint.tested(result.accuracy, result.calibration_error, result.tested_on)
    content = with_facts(model, published)
    save_checkpoint(published, folder / "checkpoint.pt")
    write_atomically(folder / "training.json", log)
    write_atomically(folder / "manifest.json", manifest(content, result.golden))
    write_atomically(folder / "model.onnx", content)
    return folder / "model.onnx"


def manifest(model: bytes, golden: Golden) -> bytes:
    """Write down, as JSON, what the ONNX file's content hashes to and what it answers."""
    content = {
        "name": NAME,
        "version": VERSION,
        "sha256": hashlib.sha256(model).hexdigest(),
        "golden": {
            "images": base64.b64encode(golden.images.tobytes()).decode(),
            "probabilities": [[float(f"{value:.7g}") for value in row] for row in golden.probabilities.tolist()],
            "digit_scores": [float(f"{value:.7g}") for value in golden.digit_scores.tolist()],
        },
    }
    return json.dumps(content).encode() + b"\n"
