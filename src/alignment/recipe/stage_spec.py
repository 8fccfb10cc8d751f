"""What the stages have of their own: `dpo`, `reward`, `ppo`, and `eval` with its metrics."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.recipe.metric_spec import Metrics, results_have_own_names
from alignment.recipe.spec import BrokenRule, Fraction, NonEmpty, Positive, Spec, sequence_of

DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "discopop", "apo_zero", "apo_down", "sigmoid_norm",
]  # fmt: skip


class DpoSpec(Spec):
    """Direct preference optimisation, https://arxiv.org/abs/2305.18290."""

    loss_type: DpoLoss = Field("sigmoid", description="loss, as TRL names them")
    beta: Annotated[float, Field(gt=0)] = Field(0.1, description="strength of the pull to the reference")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="share of pairs assumed mislabelled"
    )
    sft_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the mean negative log-likelihood of `chosen`"
    )
    reference: NonEmpty = Field(
        description="start (the model it starts from), base (below its LoRA), or a folder or Hub id"
    )


class RewardSpec(Spec):
    """Bradley-Terry reward model."""

    center_rewards_coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="weight of the squared sum of rewards that centres them at 0, https://arxiv.org/abs/2312.09244",
    )


# The scorers of `alignment.measure.scorers.SCORERS`; a test holds the two alike.
ScorerName = Literal["exact_match", "contains_answer", "last_number", "honest", "stops"]
AlertName = Literal["kl", "length", "entropy", "reward_hacking"]
KL_HORIZON = 10_000  # completions, where kl_horizon is not given


class RewardTermSpec(Spec):
    """A programmatic reward with its weight."""

    reward: ScorerName = Field(description="a name from `alignment.measure.scorers.SCORERS`")
    weight: float = Field(1.0, description="what its score is multiplied by")


class AlertSpec(Spec):
    """When a run is said to go wrong."""

    kl_per_token: Annotated[float, Field(gt=0)] = Field(
        2.0, description="kl: nats per generated token above this, mean of an update"
    )
    length_factor: Annotated[float, Field(gt=1)] = Field(
        4.0, description="length: mean completion this many times longer or shorter than in the first update"
    )
    entropy_fraction: Fraction = Field(
        0.05, description="entropy: nats per generated token below this part of the first update's"
    )
    standard_errors: Annotated[float, Field(gt=0)] = Field(
        2.0, description="reward_hacking: held-out score up and gold score down by more than this many"
    )


def _something_rewards(ppo: "PpoSpec") -> None:
    if ppo.reward_model is None and not ppo.rewards:
        raise BrokenRule(
            "nothing rewards a completion: give 'reward_model' (a reward run or Hub id), 'rewards', or both",
            "reward_model",
            "rewards",
        )


def _keys_of_reward_model(ppo: "PpoSpec") -> None:
    if ppo.reward_model is not None:
        return
    for name in ("reward_weight", "reward_template"):
        if getattr(ppo, name) != type(ppo).model_fields[name].default:
            raise BrokenRule(f"'{name}' is the reward model's, and there is no 'reward_model'", name)
    if ppo.value_model == "reward":
        raise BrokenRule("value_model: reward is the model of 'reward_model', and there is none", "value_model")


def _target_of_horizon(ppo: "PpoSpec") -> None:
    if ppo.kl_target is None and ppo.kl_horizon is not None:
        raise BrokenRule(
            "kl_horizon belongs to the adaptive controller; give 'kl_target' or leave it out", "kl_horizon"
        )
    if ppo.kl_target is not None and ppo.kl_coef == 0:
        raise BrokenRule("kl_coef: 0 stays 0 whatever kl_target says: the controller multiplies it", "kl_coef")


def _cap_of_engine(ppo: "PpoSpec") -> None:
    if ppo.sampler == "transformers" and ppo.importance_cap is not None:
        raise BrokenRule(
            "importance_cap corrects for an engine that samples with other kernels; sampler: transformers is the policy itself",
            "importance_cap",
        )


def _keys_of_engine(ppo: "PpoSpec") -> None:
    for name, sampler in (("sampler_url", "vllm_server"), ("sampler_memory", "vllm_colocate")):
        if getattr(ppo, name) is not None and ppo.sampler != sampler:
            raise BrokenRule(f"{name} is read by sampler: {sampler}, and this is {ppo.sampler}", name)


def _critic_of_shared_base(ppo: "PpoSpec") -> None:
    if ppo.share_base and ppo.value_model not in (None, "start", "reward"):
        raise BrokenRule(
            "share_base puts the critic on the policy's base; value_model may be start or reward",
            "value_model",
            "share_base",
        )


def _gold_is_watched(ppo: "PpoSpec") -> None:
    if "reward_hacking" in ppo.stop_on and ppo.gold is None:
        raise BrokenRule("stop_on: reward_hacking compares the score with a gold score; give 'gold'", "stop_on")


class PpoSpec(Spec):
    """Proximal policy optimisation with a learned critic, https://arxiv.org/abs/1707.06347 and 2203.02155."""

    reward_model: NonEmpty | None = Field(
        None, description="a reward run, folder or Hub id; it reads messages, not our ids"
    )
    reward_template: str = Field(
        "from_tokenizer", description="chat template of the reward model: a name, a .jinja file, or from_tokenizer"
    )
    reward_weight: float = Field(1.0, description="what its score is multiplied by")
    rewards: sequence_of(ScorerName | RewardTermSpec) = Field(
        (), description="programmatic rewards, added to the score"
    )
    gold: ScorerName | None = Field(
        None, description="a programmatic score that is measured on held-out rows and never trained on"
    )
    value_model: NonEmpty | None = Field(
        None,
        description="what the critic starts from: reward, start (the start model with a zero head), a folder or Hub id; "
        "default: the reward model where there is one, else start",
    )
    share_base: bool = Field(
        False,
        description="LoRA: policy, reference, critic, and a reward model that is LoRA on the same weights, share them in memory",
    )
    sampler: Literal["transformers", "vllm_colocate", "vllm_server"] = Field(
        "transformers", description="what generates completions; vLLM needs the [vllm] extra and a GPU"
    )
    importance_cap: Annotated[float, Field(ge=1)] | None = Field(
        None, description="greatest weight of a token that an engine other than the policy sampled; default: 2"
    )
    sampler_url: str | None = Field(
        None, description="address of the server of vllm_server; default: http://localhost:8000"
    )
    sampler_memory: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="part of each GPU's memory that vllm_colocate takes; default: 0.3"
    )
    max_new_tokens: Positive = Field(128, description="longest completion in tokens")
    temperature: Annotated[float, Field(gt=0)] = Field(
        1.0, description="of sampling, and of every log-probability of policy and reference"
    )
    per_device_rollout_batch_size: Positive = Field(
        32, description="completions in one generation or scoring pass of one process"
    )
    num_ppo_epochs: Positive = Field(4, description="passes over the completions of an update")
    num_mini_batches: Positive = Field(
        1, description="optimizer steps in such a pass; an update has this many times global_batch_size completions"
    )
    kl_coef: Annotated[float, Field(ge=0)] = Field(0.05, description="weight of the KL penalty (k1) in the reward")
    kl_target: Annotated[float, Field(gt=0)] | None = Field(
        None, description="nats per completion that adaptive control steers to; default: kl_coef stays fixed"
    )
    kl_horizon: Positive | None = Field(
        None, description="completions in which the controller corrects an error; default: 10000"
    )
    gamma: Fraction = Field(1.0, description="discount")
    lam: Fraction = Field(0.95, description="lambda of the advantages, https://arxiv.org/abs/1506.02438")
    lam_critic: Fraction | None = Field(None, description="lambda of the critic's targets; default: lam")
    cliprange: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="the ratio is clipped to 1 - this ...")
    cliprange_high: Annotated[float, Field(gt=0)] | None = Field(
        None, description="... and 1 + this; default: cliprange"
    )
    cliprange_value: Annotated[float, Field(ge=0)] = Field(
        0.2, description="values may move this far from the old ones in an update; 0: as far as they want"
    )
    vf_coef: Annotated[float, Field(gt=0)] = Field(0.1, description="weight of the critic's loss")
    critic_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak learning rate of the critic; default: train.learning_rate"
    )
    critic_warmup_updates: Annotated[int, Field(ge=0)] = Field(
        0, description="first updates in which only the critic is trained"
    )
    whiten_advantages: bool = Field(True, description="mean 0 and variance 1 over all tokens of an update")
    whiten_rewards: bool = Field(False, description="variance 1 of the rewards over all tokens of an update")
    missing_eos_penalty: Annotated[float, Field(ge=0)] = Field(
        1.0, description="taken off the score of a completion that does not end"
    )
    scale_scores: bool = Field(False, description="divide scores by their running standard deviation")
    clip_scores: Annotated[float, Field(gt=0)] | None = Field(
        None, description="scores are clipped to plus and minus this, after scaling"
    )
    alerts: AlertSpec = AlertSpec()
    stop_on: sequence_of(AlertName) = Field((), description="alerts that end the run; the others are only said")

    RULES = (
        _something_rewards,
        _keys_of_reward_model,
        _target_of_horizon,
        _cap_of_engine,
        _keys_of_engine,
        _gold_is_watched,
        _critic_of_shared_base,
    )


class EvalSpec(Spec):
    """What is measured on the held-out rows, before and after training."""

    per_device_eval_batch_size: Positive = Field(8, description="rows in one forward pass of one process")
    num_samples: Annotated[int, Field(ge=0)] = Field(8, description="generations shown in the report, before and after")
    max_new_tokens: Positive = Field(128, description="longest generation in tokens")
    metrics: Metrics = Field((), description="metrics, by name or with `where` and `by`")

    RULES = (results_have_own_names,)


class ScoreEvalSpec(Spec):
    """What is measured on the held-out pairs, before and after training."""

    per_device_eval_batch_size: Positive = Field(8, description="pairs in one forward pass of one process")
    metrics: Metrics = Field((), description="metrics, by name or with `where` and `by`")

    RULES = (results_have_own_names,)


class EvaluateSpec(EvalSpec):
    """What is measured."""

    metrics: Annotated[Metrics, Field(min_length=1)] = Field(description="metrics, by name or with `where` and `by`")
    against: NonEmpty | None = Field(None, description="a folder or Hub id to compare with")
