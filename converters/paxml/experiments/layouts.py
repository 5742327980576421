"""Rows for the classes that saxml serves, and for what public converters write for them.

`saxml/tools/convert_llama_ckpt.py` writes queries and keys in Meta's order, with interleaved rotary
pairs. `convert_huggingface_ckpt` and `convert_vicuna_ckpt` write HuggingFace's order, whose pairs
come from the two halves of a head, in the same layout.
"""

from converters.paxml.experiments import models as m
from converters.paxml.experiments.row import Experiment

PRAXIS = "1.4.0"
PARAMS = "google/saxml saxml/server/pax/lm/params/"
LM_CLOUD, GPTJ, GEMMA = f"{PARAMS}lm_cloud.py", f"{PARAMS}gptj.py", f"{PARAMS}gemma.py"
TOOLS = "google/saxml saxml/tools/"
ONE = (1,)  # these tools write the step as a vector of one number

# fmt: off
LAYOUTS = (
    # name, source, settings, sizes as in `SIZES`
    Experiment("LLaMA7BFP16", LM_CLOUD, PRAXIS, m.LLAMA,
               (32, 4096, 11008, 32, 32, 128, 32000), written_as="float16"),
    Experiment("LLaMA13B", LM_CLOUD, PRAXIS, m.LLAMA,
               (40, 5120, 13824, 40, 40, 128, 32000), written_as="float16"),
    Experiment("LLaMA33B", LM_CLOUD, PRAXIS, m.LLAMA,
               (60, 6656, 17920, 52, 52, 128, 32000), written_as="float16"),
    Experiment("LLaMA65B", LM_CLOUD, PRAXIS, m.LLAMA,
               (80, 8192, 22016, 64, 64, 128, 32000), written_as="float16"),
    Experiment("LLaMA70BFP16TPUv5e", LM_CLOUD, PRAXIS, m.LLAMA_GROUPED,
               (80, 8192, 28672, 64, 8, 128, 32000), written_as="float16"),
    # Weights of Llama 3.1 have this layout too, but they also need rotary.scaling.
    Experiment("LLaMA3_8BFP16x4", LM_CLOUD, PRAXIS, m.LLAMA3,
               (32, 4096, 14336, 32, 8, 128, 128256), written_as="float16"),
    Experiment("LLaMA3_70BFP16x16", LM_CLOUD, PRAXIS, m.LLAMA3,
               (80, 8192, 28672, 64, 8, 128, 128256), written_as="float16"),
    Experiment("convert_huggingface_ckpt", f"{TOOLS}convert_huggingface_ckpt.py", PRAXIS,
               m.LLAMA_HUGGINGFACE, (32, 4096, 11008, 32, 32, 128, 32000), written_as="float16",
               step_shape=ONE),
    Experiment("convert_vicuna_ckpt", f"{TOOLS}convert_vicuna_ckpt.py", PRAXIS,
               m.LLAMA_HUGGINGFACE, (32, 4096, 11008, 32, 32, 128, 32000), written_as="float32",
               step_shape=ONE),
    Experiment("GPTJ", GPTJ, PRAXIS, m.GPTJ,
               (28, 4096, 16384, 16, 16, 256, 50401), written_as="float32",
               if_sized={"rotary.fraction": 0.25}),
    Experiment("Gemma2BFP16", GEMMA, PRAXIS, m.GEMMA_2B, (18, 2048, 16384, 8, 1, 256, 256128)),
    Experiment("Gemma7BFP16", GEMMA, PRAXIS, m.GEMMA_7B, (28, 3072, 24576, 16, 16, 256, 256128)),
)
# fmt: on
"""Classes and tools of google/saxml."""
