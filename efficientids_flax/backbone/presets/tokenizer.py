"""Loads the tokenizer of a pretrained model with `transformers`."""

import os
from typing import Any

from efficientids_flax.backbone.presets.folder import pretrained_folder


def load_tokenizer(name_or_path: str | os.PathLike[str], revision: str = "main") -> Any:
    """`AutoTokenizer` of a folder, or of a model in the HuggingFace cache; nothing is downloaded.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: there is no such model.
        ValueError: the folder has no tokenizer that transformers can read.
    """
    folder = pretrained_folder(name_or_path, revision)
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            "tokenizers need transformers: pip install 'efficientids-flax[hf]'"
        ) from error
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: holds no tokenizer that transformers can read: {error}"
        ) from error
