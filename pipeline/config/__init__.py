"""The vocabulary of settings: what a user may set, its meaning, default and bounds.

Holds one module a part of the tree (`root` is the whole), and `loading`, which makes a `Config` of what a user wrote.
Imports `pipeline.records` alone; must never know Ray, torch, vLLM, nor what is implemented elsewhere, which settings
name by "module:name".
"""

from __future__ import annotations

from pipeline.config.cluster import PoolConfig, RayConfig
from pipeline.config.committee import (
    PROMPTS,
    VERIFIERS,
    AskingVerifierConfig,
    AuthorVerifierConfig,
    CommitteeConfig,
    ExecutingVerifierConfig,
    Flag,
    ModelVerifierConfig,
    ProberConfig,
    ProgramVerifierConfig,
    SymbolicVerifierConfig,
    VerifierConfig,
)
from pipeline.config.domains import DOMAINS, DomainConfig, MiniDomainConfig, TextDomainConfig
from pipeline.config.endpoints import EndpointConfig, EndpointUse, asks_endpoint
from pipeline.config.episode import EpisodeConfig, EpisodeLimits, SandboxConfig
from pipeline.config.models import EngineConfig, ModelConfig, SamplingConfig
from pipeline.config.objectives import (
    OBJECTIVES,
    GRPOConfig,
    MGPOConfig,
    MGPOFields,
    MGPONoStageConfig,
    ObjectiveConfig,
    SFTConfig,
)
from pipeline.config.rewards import ReflectionJudgeConfig, RewardConfig
from pipeline.config.rewriting import REWRITINGS, MetaMathConfig, RewritingConfig, WizardMathConfig
from pipeline.config.root import Config
from pipeline.config.section import Implemented, Registry, Section
from pipeline.config.skills import (
    TEACHERS,
    AcquireStage,
    CorpusFields,
    CorpusSource,
    MixtureTeacherConfig,
    ModelTeacherConfig,
    OpenAITeacherConfig,
    ScriptedTeacherConfig,
    TeacherConfig,
)
from pipeline.config.stages import (
    STYLES,
    CurriculumConfig,
    EvaluateStage,
    MGPOStage,
    SFTStage,
    SolveStage,
    SourceConfig,
    Style,
    SynthesizeStage,
    WarmupConfig,
)
from pipeline.config.training import LoRAConfig, Supervised, TrainerConfig

__all__ = [
    "DOMAINS",
    "OBJECTIVES",
    "PROMPTS",
    "REWRITINGS",
    "STYLES",
    "TEACHERS",
    "VERIFIERS",
    "AcquireStage",
    "AskingVerifierConfig",
    "AuthorVerifierConfig",
    "CommitteeConfig",
    "Config",
    "CorpusFields",
    "CorpusSource",
    "CurriculumConfig",
    "DomainConfig",
    "EndpointConfig",
    "EndpointUse",
    "EngineConfig",
    "EpisodeConfig",
    "EpisodeLimits",
    "EvaluateStage",
    "ExecutingVerifierConfig",
    "Flag",
    "GRPOConfig",
    "Implemented",
    "LoRAConfig",
    "MGPOConfig",
    "MGPOFields",
    "MGPONoStageConfig",
    "MGPOStage",
    "MetaMathConfig",
    "MiniDomainConfig",
    "MixtureTeacherConfig",
    "ModelConfig",
    "ModelTeacherConfig",
    "ModelVerifierConfig",
    "ObjectiveConfig",
    "OpenAITeacherConfig",
    "PoolConfig",
    "ProberConfig",
    "ProgramVerifierConfig",
    "RayConfig",
    "ReflectionJudgeConfig",
    "Registry",
    "RewardConfig",
    "RewritingConfig",
    "SFTConfig",
    "SFTStage",
    "SamplingConfig",
    "SandboxConfig",
    "ScriptedTeacherConfig",
    "Section",
    "SolveStage",
    "SourceConfig",
    "Style",
    "Supervised",
    "SymbolicVerifierConfig",
    "SynthesizeStage",
    "TeacherConfig",
    "TextDomainConfig",
    "TrainerConfig",
    "VerifierConfig",
    "WarmupConfig",
    "WizardMathConfig",
    "asks_endpoint",
]
