"""Writes a converted checkpoint as a folder that `transformers` opens.

Read `folder` first, then `tensors` for the values, and `config_json` and `rotary_json` for the
settings. `source` opens the checkpoint.
"""

from converters.huggingface.export.folder import ExportOptions, export_pretrained
