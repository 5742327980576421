"""The way back: a converted checkpoint as a folder that `transformers` opens.

Read `folder`, then `tensors` for the values and `config_json` and `rotary_json` for the settings;
`source` opens what is exported.
"""

from converters.huggingface.export.folder import ExportOptions, export_pretrained
