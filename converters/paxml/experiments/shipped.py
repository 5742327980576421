"""The experiments that PAXml ships, as their own dumps describe them."""

from collections.abc import Mapping

from converters.paxml.experiments import learners as t
from converters.paxml.experiments import models as m
from converters.paxml.experiments.row import Experiment

PRAXIS = "1.4.0"
PARAMS = "google/paxml paxml/tasks/lm/params/"
C4, C4_MULTISLICE = f"{PARAMS}c4.py", f"{PARAMS}c4_multislice.py"
LM_CLOUD, OPTIMAL_SCALING = f"{PARAMS}lm_cloud.py", f"{PARAMS}optimal_scaling.py"
NVIDIA, BERT = f"{PARAMS}nvidia.py", f"{PARAMS}bert.py"
Sizes = tuple[int, ...]


def _of(
    source: str, model: m.Settings, learner: t.Settings, classes: Mapping[str, Sizes]
) -> list[Experiment]:
    """Make rows for classes: layers L, width D, hidden width F, heads N, head width H, words V.

    A seventh number is the number of key and value heads, if it differs from N.
    """
    return [
        Experiment(name, source, PRAXIS, model, (*s[:4], s[6] if s[6:] else s[3], *s[4:6]), learner)
        for name, s in classes.items()
    ]


# fmt: off
SHIPPED = (
    *_of(C4, m.GPT_FLOAT32, t.C4_ADAM, {
        "LmCloudSpmdAdam": (2, 2048, 8192, 16, 128, 32000),
        "LmCloudSpmdAdamLimitSteps": (2, 2048, 8192, 16, 128, 32000),
        "C4SpmdAdam": (24, 2048, 8192, 32, 64, 32128),
        "C4SpmdPipelineAdam": (24, 2048, 8192, 32, 64, 32128),
    }),
    *_of(C4, m.GPT3, t.GPT3_ADAM, {
        "C4SpmdGpt3AdamOrgHP": (96, 12288, 49152, 96, 128, 50257),
        "C4SpmdGpt3AdamOrgHPBS1p5k1536Replicas": (96, 12288, 49152, 96, 128, 51200),
        "C4SpmdPipelineGpt3AdamOrgHP": (96, 12288, 49152, 96, 128, 50257),
        "C4SpmdPipelineGpt3AdamOrgHPBS1p5k768Replicas": (96, 12288, 49152, 96, 128, 51200),
    }),
    *_of(C4, m.GPT3, t.MLPERF_ADAM, {
        "C4SpmdPipelineGpt3AdamMLPerfHP": (96, 12288, 49152, 96, 128, 51200),
        "C4SpmdPipelineGpt3AdamMLPerfHPBS1p5k768Replicas": (96, 12288, 49152, 96, 128, 51200),
        "C4SpmdPipelineGpt3AdamMLPerfHPBS2k512Replicas": (96, 12288, 49152, 96, 128, 51200),
        "C4SpmdPipelineGpt3AdamMLPerfHPBS3k768Replicas": (96, 12288, 49152, 96, 128, 51200),
        "C4SpmdPipelineGpt3AdamMLPerfHPBS4k1024Replicas": (96, 12288, 49152, 96, 128, 51200),
        "C4SpmdPipelineGpt3AdamMLPerfHPBS8k1024Replicas": (96, 12288, 49152, 96, 128, 51200),
    }),
    *_of(C4, m.GPT, t.C4_ADAM, {
        "C4Spmd1BAdam4Replicas": (13, 2560, 10240, 20, 128, 32000),
        "C4Spmd1BAdam4ReplicasLimitSteps": (13, 2560, 10240, 20, 128, 32000),
        "C4Spmd2BAdam4Replicas": (18, 3072, 12288, 24, 128, 32000),
        "C4Spmd16BAdam32Replicas": (36, 6144, 24576, 48, 128, 32000),
        "C4Spmd32BAdam64Replicas": (40, 8192, 32768, 64, 128, 32000),
    }),
    *_of(C4, m.GPT3_BFLOAT16, t.GPT3_ADAM, {
        "C4SpmdGpt3L16AdamOrgHP": (16, 12288, 49152, 96, 128, 50257),
    }),
    *_of(C4, m.GPT3_BFLOAT16, t.GPT3_SMALL_ADAM, {
        "C4SpmdPipelineGpt3SmallAdam8Replicas": (24, 3072, 12288, 24, 128, 51200),
    }),
    *_of(C4_MULTISLICE, m.GPT, t.C4_ADAM, {
        "C4Spmd22BAdamMaxText": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam1xv4_128": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam2xv4_128": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam4xv4_128": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam1xv4_128LimitSteps": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam2xv4_128LimitSteps": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam4xv4_128LimitSteps": (48, 6144, 24576, 24, 256, 32768),
        "C4Spmd22BAdam1xv4_384": (24, 9216, 36864, 24, 384, 32768),
        "C4Spmd22BAdam2xv4_384": (24, 9216, 36864, 24, 384, 32768),
        "C4Spmd22BAdam1xv4_8": (16, 2048, 8192, 8, 256, 32768),
        "C4Spmd22BAdam2xv4_8": (16, 2048, 8192, 8, 256, 32768),
        "C4Spmd22BAdam4xv4_8": (16, 2048, 8192, 8, 256, 32768),
        "C4Spmd22BAdam1xv4_8LimitSteps": (16, 2048, 8192, 8, 256, 32768),
        "C4Spmd22BAdam2xv4_8LimitSteps": (16, 2048, 8192, 8, 256, 32768),
        "C4Spmd22BAdam4xv4_8LimitSteps": (16, 2048, 8192, 8, 256, 32768),
        "C4Spmd32BAdam1xv5_256": (40, 8192, 32768, 32, 256, 32768),
        "C4Spmd32BAdam2xv5_256": (40, 8192, 32768, 32, 256, 32768),
    }),
    *_of(C4_MULTISLICE, m.GPT3_BFLOAT16, t.GPT3_ADAM, {
        "C4SpmdGpt3AdamDataParallel2x16x16": (96, 12288, 49152, 96, 128, 50257),
    }),
    *_of(LM_CLOUD, m.GPT_PMAP, t.C4_ADAM, {
        "LmCloudTransformerAdam": (32, 1024, 4096, 16, 64, 32000),
        "LmCloudTransformerAdamTest": (2, 1024, 4096, 16, 64, 32000),
        "LmCloudTransformerAdamLimitSteps": (10, 1024, 4096, 16, 64, 32000),
    }),
    *_of(LM_CLOUD, m.GPT, t.LM_CLOUD_ADAM, {
        "LmCloudSpmd": (10, 2048, 8192, 16, 128, 32000),
        "LmCloudSpmdTest": (2, 64, 256, 8, 8, 32000),
        "LmCloudSpmd2B": (18, 3072, 12288, 24, 128, 32000),
        "LmCloudSpmd2BLimitSteps": (18, 3072, 12288, 24, 128, 32000),
        "LmCloudSpmd32B": (40, 8192, 32768, 64, 128, 32000),
        "LmCloudSpmd64B": (51, 10240, 40960, 80, 128, 32000),
        "LmCloudSpmd128B": (71, 12288, 49152, 96, 128, 32000),
        "LmCloudSpmd256B": (80, 16384, 65536, 128, 128, 32000),
        "LmCloudSpmd512B": (102, 20480, 81920, 160, 128, 32000),
        "LmCloudSpmd1024B": (142, 24576, 98304, 192, 128, 32000),
        "LmCloudSpmdPipeline175B": (96, 12288, 49152, 96, 128, 32000),
        "LmCloudSpmdMultislice2B": (18, 3072, 12288, 24, 128, 32000),
        "LmCloudSpmdPipelineMultislice2B": (18, 3072, 12288, 24, 128, 32000),
        "LmCloudSpmdPipelineMultislice2BCircular": (18, 3072, 12288, 24, 128, 32000),
    }),
    *_of(LM_CLOUD, m.GPT_FLOAT32, t.LM_CLOUD_ADAM, {
        "LmCloudSpmdPipeline9B": (48, 4096, 16384, 32, 128, 32000),
    }),
    *_of(OPTIMAL_SCALING, m.GPT, t.LM_CLOUD_ADAM, {
        "OptimalScaling2x2x1": (28, 3584, 14336, 28, 128, 32000),
        "OptimalScaling2x2x2": (32, 4096, 16384, 32, 128, 32000),
        "OptimalScaling2x2x4": (36, 4608, 18432, 36, 128, 32000),
        "OptimalScaling2x4x4": (40, 5120, 20480, 40, 128, 32000),
        "OptimalScaling4x4x4": (45, 5760, 23040, 45, 128, 32000),
        "OptimalScaling4x4x8": (50, 6400, 25600, 50, 128, 32000),
        "OptimalScaling4x8x8": (56, 7168, 28672, 56, 128, 32000),
        "OptimalScaling4x8x16": (64, 8192, 32768, 64, 128, 32000),
        "OptimalScaling4x16x16": (64, 8192, 32768, 64, 128, 32000),
        "OptimalScaling4x16x32": (64, 8192, 32768, 64, 128, 32000),
        "OptimalScaling4x24x32": (64, 8192, 32768, 64, 128, 32000),
    }),
    *_of(NVIDIA, m.GPT_LEARNED, t.NVIDIA_ADAM, {
        "NVIDIA1_3B": (24, 2048, 8192, 32, 64, 51200),
        "NVIDIA5B": (24, 4096, 16384, 32, 128, 51200),
        "NVIDIA8_3B": (40, 4096, 16384, 64, 64, 51200),
        "NVIDIA10B": (32, 5120, 20480, 40, 128, 51200),
        "NVIDIA40BProxy": (12, 8192, 32768, 64, 128, 51200),
        "NVIDIA70BProxy": (20, 8192, 32768, 64, 128, 51200),
        "NVIDIA116BProxy": (16, 12288, 49152, 96, 128, 51200),
        "NVIDIA175BProxy": (24, 12288, 49152, 96, 128, 51200),
        "TestSmallConfig": (16, 4096, 16384, 32, 128, 51200),
    }),
    *_of(NVIDIA, m.GPT_LEARNED, t.NVIDIA_ADAFACTOR, {
        "NVIDIA175B": (96, 12288, 49152, 96, 128, 51200),
        "Llama33BProxy": (60, 6656, 17920, 52, 128, 32000),
        "NVIDIA175B_FSDP": (96, 12288, 49152, 96, 128, 51200),
    }),
    *_of(NVIDIA, m.LLAMA2_OF_NVIDIA, t.NVIDIA_ADAM, {
        "Llama2_7B": (32, 4096, 11008, 32, 128, 51200),
        "Llama2_13B": (40, 5120, 13824, 40, 128, 51200),
        "Llama2_70B": (80, 8192, 28672, 64, 128, 51200, 8),
    }),
    *_of(NVIDIA, m.MOE_OF_NVIDIA, t.NVIDIA_ADAM, {
        "MoELarge": (12, 4096, 16384, 32, 128, 51200),
    }),
    *_of(NVIDIA, m.GLAM, t.NVIDIA_ADAM, {
        "GLaM64B64EProxy": (8, 8192, 32768, 64, 128, 51200),
    }),
    *_of(BERT, m.BERT_PMAP, t.C4_ADAM, {
        "BertAdamL4H128": (4, 128, 512, 8, 16, 32000),
    }),
    *_of(BERT, m.BERT, t.BERT_ADAFACTOR, {
        "BertSpmdL4H128": (4, 128, 512, 8, 16, 32000),
    }),
    *_of(BERT, m.BERT_SMOOTHED, t.BERT_LARGE_ADAFACTOR, {
        "BertSpmdL33H12kBiggerBatch": (33, 12288, 98304, 128, 96, 32000),
        "BertSpmdL33H12kBiggerBatch8x8x16": (33, 12288, 98304, 128, 96, 32000),
        "BertSpmdL66H12kBiggerBatch8x8x16": (66, 12288, 98304, 128, 96, 32000),
        "BertSpmdL66H12kBiggerBatch8x8x8": (66, 12288, 98304, 128, 96, 32000),
    }),
)
# fmt: on
"""Classes of google/paxml 1.4.0."""
