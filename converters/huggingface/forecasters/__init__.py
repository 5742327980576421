"""TimesFM as HuggingFace has it (`TimesFmModelForPrediction`), in and out.

Read `table`, which tensor is which parameter, and `settings`, the same of `config.json`; then
`plans`, from a folder to a checkpoint and back.
"""

from converters.huggingface.forecasters.plans import plan_forecaster, plan_forecaster_folder
from converters.huggingface.forecasters.settings import MODEL_TYPE
