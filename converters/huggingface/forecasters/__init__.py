"""Reads and writes TimesFM in HuggingFace's form (`TimesFmModelForPrediction`).

Read `table` first, which maps tensors to parameters, then `settings`, which does the same for
`config.json`, then `plans`, which plans both directions.
"""

from converters.huggingface.forecasters.plans import plan_forecaster, plan_forecaster_folder
from converters.huggingface.forecasters.settings import MODEL_TYPE
