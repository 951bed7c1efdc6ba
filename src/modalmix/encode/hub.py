"""Hugging Face models: from the hub, from its cache, or from a folder; loaded whole or not at all."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from modalmix.errors import EncodeError
from modalmix.files import sha256_file, sha256_values

PREFIX = "hf:"
FILES = ("*.json", "*.txt", "*.model", "*.jinja")
# parts of a checkpoint that may be missing: nothing we read depends on them
UNUSED_WEIGHTS = ("pooler.", "mask_token", "masked_spec_embed", "decoder.", "embeddings.position_ids")
TWO_TOWERS = frozenset({"clip", "siglip", "siglip2", "chinese_clip", "align", "altclip", "metaclip_2"})


@dataclass(frozen=True)
class Pretrained:
    """A model on disk. `revision` is the commit of the hub, or the hash of the files of a folder."""

    name: str
    folder: Path
    revision: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config.json. Raises EncodeError."""
        try:
            return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise EncodeError(f"{self.name} has no readable config.json", got=error, fix=_FIX) from error

    @property
    def architecture(self) -> str:
        """The name transformers has for the architecture."""
        return str(self.config.get("model_type", "unknown"))

    def model(self, auto: Any) -> Any:
        """The model, in evaluation mode. Raises EncodeError when weights are missing: random ones encode nothing."""
        model, info = self.part(auto.from_pretrained, output_loading_info=True)
        missing = [name for name in info["missing_keys"] if not any(part in name for part in UNUSED_WEIGHTS)]
        if missing:
            raise EncodeError(f"{self.name} lacks weights", got=f"{len(missing)} missing, first {missing[0]}", fix=_FIX)
        return model.eval().requires_grad_(False)

    def part(self, load: Callable[..., Any], **options: Any) -> Any:
        """What `load` makes of the folder: a model, a tokenizer, a processor. Raises EncodeError when it cannot."""
        try:
            with _quiet():
                return load(str(self.folder), local_files_only=True, **options)
        except Exception as error:  # transformers raises nearly anything for a folder it does not understand
            kind = load.__qualname__.removesuffix(".from_pretrained")
            reason = str(error).strip().split("\n")[0]
            raise EncodeError(f"{self.name} cannot be loaded by {kind}", got=reason, fix=_FIX) from error


_FIX = "Choose a model of this modality that transformers can load, by hub name or folder."


def find_pretrained(encoder: str) -> Pretrained:
    """The model that `hf:NAME`, `hf:NAME@REVISION` or `hf:FOLDER` means, downloaded where needed and allowed.

    HF_HUB_OFFLINE=1 uses only what is already in the Hugging Face cache. Raises EncodeError.
    """
    name = encoder.removeprefix(PREFIX)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
            raise EncodeError(f"folder {folder} holds no model", expected="config.json or modules.json", fix=_FIX)
        return Pretrained(encoder, folder, _hash_of(folder))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        found = Path(snapshot_download(repository, revision=revision or None, allow_patterns=[*FILES, "*.safetensors"]))
        if not any(found.rglob("*.safetensors")):
            found = Path(snapshot_download(repository, revision=found.name, allow_patterns=[*FILES, "pytorch_model*"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise EncodeError(
            f"encoder {encoder} is neither a folder nor a model that can be downloaded or is in the cache",
            got=type(error).__name__,
            fix="Check the name, unset HF_HUB_OFFLINE to allow the download, or give a folder: hf:path/to/model.",
        ) from error
    return Pretrained(encoder, found, found.name)


def _hash_of(folder: Path) -> str:
    """The hash of every file in a folder, names included."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_values([[str(path.relative_to(folder)), sha256_file(path)] for path in files])


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading without progress bars and advice: what matters becomes an error."""
    from transformers.utils import logging as chatter

    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity(logging.CRITICAL)
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()


def tensor_of(output: Any) -> Any:
    """The pooled tensor of a tower: transformers 4 returns it, transformers 5 wraps it."""
    import torch

    return output if isinstance(output, torch.Tensor) else output.pooler_output
