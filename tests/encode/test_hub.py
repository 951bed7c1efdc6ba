import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from modalmix.encode import encode_audio, encode_images, encode_text
from modalmix.encode.hub import find_pretrained
from modalmix.errors import EncodeError


@pytest.mark.parametrize("name", ["hf:nobody/no-such-model", "hf:not a name", "hf:nobody/no-such-model@v2", "hf:"])
def test_an_unknown_model_is_an_error_that_says_what_to_do(name: str) -> None:
    with pytest.raises(EncodeError, match=r"neither a folder nor a model.*HF_HUB_OFFLINE"):
        encode_text(["a"], encoder=name)


def test_the_hash_of_a_folder_changes_with_its_files(tiny: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copytree(tiny["bert"], copy)
    before = find_pretrained(f"hf:{copy}").revision
    assert before == find_pretrained(f"hf:{tiny['bert']}").revision  # a matter of content, not of place
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert find_pretrained(f"hf:{copy}").revision != before


def test_a_model_of_another_modality_is_an_error(tiny: dict[str, Path], pictures: list[Path]) -> None:
    with pytest.raises(EncodeError, match="cannot be loaded by AutoImageProcessor"):
        encode_images(pictures, encoder=f"hf:{tiny['bert']}")
    with pytest.raises(EncodeError, match="cannot be loaded by AutoTokenizer"):
        encode_text(["a"], encoder=f"hf:{tiny['vit']}")
    with pytest.raises(EncodeError, match="audio encoder: got 'clap', expected hf:NAME"):
        encode_audio([None], encoder="clap")


def test_missing_weights_are_an_error_not_random_features(
    tiny: dict[str, Path], pictures: list[Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copytree(tiny["vit"], tmp_path / "vit")
    weights = load_file(tmp_path / "vit" / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncodeError, match=r"lacks weights: got 1 missing, first layernorm.weight"):
        encode_images(pictures, encoder=f"hf:{tmp_path / 'vit'}")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"holds no model"):
        encode_text(["a"], encoder=f"hf:{tmp_path}")


def test_loading_says_nothing(tiny: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    encode_text(["a"], encoder=f"hf:{tiny['bert']}")
    encode_text(["a"])
    assert capfd.readouterr() == ("", "")


def test_importing_and_a_cached_result_need_no_torch(own_cache: Path, pictures: list[Path]) -> None:
    encode_images(pictures)
    encode_text(["a"])
    code = (
        "import sys; from modalmix.encode import encode_images, encode_text\n"
        f"assert encode_images({[str(path) for path in pictures]}).from_cache\n"
        "assert encode_text(['a']).from_cache\n"
        "print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")
