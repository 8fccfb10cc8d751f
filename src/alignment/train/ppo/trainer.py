"""transformers' Trainer with an update of PPO in place of an epoch of rows.

Trainer's own loop is kept: it accumulates, clips, steps, logs, evaluates, saves and resumes. What is ours is where a micro-batch comes
from (a rollout that is made at the first step of every update) and the loss. A sampler over prompts is not needed: the prompts of
an update follow from its number, and so do all random draws, so a resumed run goes on with the same completions.
"""

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from alignment.errors import ArtifactError, DivergedError
from alignment.measure.rows import EvalRow
from alignment.recipe.schedule import RolloutSchedule
from alignment.recipe.stage_spec import KL_HORIZON, PpoSpec
from alignment.train.guard import Guarded
from alignment.train.memory import EVALUATION, ROLLOUT, shrinking
from alignment.train.part import PartView
from alignment.train.ppo import losses
from alignment.train.ppo.actor_critic import ActorCritic, token_logps
from alignment.train.ppo.checkpoint import load_parts, read_state, save_parts, write_state
from alignment.train.ppo.control import KLController, RunningScale
from alignment.train.ppo.held_out import HeldOut
from alignment.train.ppo.mini_batches import MicroBatch, plan_update
from alignment.train.ppo.optimizer import clip_apart, hold_policy, split_groups
from alignment.train.ppo.rewards import Rewards, read_asked
from alignment.train.ppo.rollout import (
    Rollout,
    Shaping,
    collate,
    describe_rollout,
    estimate_advantages,
    look_at_tokens,
    shape_scores,
    weigh_tokens,
)
from alignment.train.ppo.samplers import Completion, Sampler, check_completions
from alignment.train.ppo.watch import Alert, Watch
from alignment.train.precision import FullPrecisionOutputs
from alignment.train.training import Training
from alignment.train.trl_bridge.frozen import place_frozen

logger = logging.getLogger(__name__)
DEFAULT_CAP = 2.0  # of importance weights
# Rows of the sum over a step's tokens that `log` turns into metrics.
_SUMS = ("tokens", "policy", "value", "clipped", "approx_kl", "ratio", "ratio_squared", "entropy", "value_clipped")


class Positions(Dataset):
    """As many entries as the steps take completions; they say nothing but where in the run one is."""

    def __init__(self, num_positions: int) -> None:
        self._num_positions = num_positions

    def __len__(self) -> int:
        return self._num_positions

    def __getitem__(self, position: int) -> dict[str, int]:
        return {"position": position}


@dataclass
class RolloutTokens:
    """Counts of tokens, which nobody knows before they are sampled: those of all rollouts so far."""

    total: int = 0
    generated: int = 0

    def seen(self, step: int) -> int:
        return self.total

    def trained(self, step: int) -> int:
        return self.generated


class PPOTrainer(Guarded, FullPrecisionOutputs, Trainer):
    """Proximal policy optimisation with a learned critic.

    Args:
        reference: a frozen reference; None: the policy without its adapter.
        make_sampler: from the trainer to what generates.
    """

    # `compute_loss` divides by the tokens of the whole mini-batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: ActorCritic,
        arguments: TrainingArguments,
        training: Training,
        *,
        reference: torch.nn.Module | None,
        rewards: Rewards,
        make_sampler: Callable[["PPOTrainer"], Sampler],
        callbacks: list[Any],
    ) -> None:
        schedule: RolloutSchedule = training.schedule
        super().__init__(
            model=model,
            args=arguments,
            data_collator=lambda rows: {"position": torch.tensor([row["position"] for row in rows])},
            train_dataset=Positions(schedule.steps * schedule.global_batch_size),
            eval_dataset=training.eval_rows,
            processing_class=training.tokenizer,
            callbacks=callbacks,
        )
        spec: PpoSpec = training.recipe.ppo
        self.training, self.schedule, self.spec = training, schedule, spec
        self.pad_id = training.prepared.manifest["pad_id"]
        place = partial(place_frozen, accelerator=self.accelerator)
        self.reference = place(reference) if reference is not None else None
        # A reward model on the same base is a part of the trained module, and placed with it.
        self.rewards = rewards if hasattr(model, "reward") else rewards.place(place)
        self.sampler = make_sampler(self)
        self.shaping = Shaping(**{name: getattr(spec, name) for name in Shaping.__dataclass_fields__})
        self.kl = KLController(spec.kl_coef, spec.kl_target, spec.kl_horizon or KL_HORIZON)
        self.scale = RunningScale()
        self.watch = Watch(spec.alerts)
        self.tokens = RolloutTokens()
        self.held_out = self._make_held_out()
        self._rollout: Rollout | None = None
        self._plan: list[MicroBatch] = []
        self._micro: int | None = None  # forward passes since the run began, over all its processes' lives
        self._once: dict[str, list[float]] = defaultdict(list)  # metrics of updates since the last line
        self._sums = torch.zeros(len(_SUMS), dtype=torch.float64)
        self._seconds: dict[str, float] = defaultdict(float)
        self._rates: dict[str, float] = {}
        self._save_due = self._stop_due = False

    @property
    def policy_view(self) -> PartView:
        """The policy as a model by itself."""
        return PartView(self, "policy")

    @property
    def reference_view(self) -> Any:
        """The reference as a model by itself."""
        return self.reference if self.reference is not None else PartView(self, "policy", without_adapter=True)

    def _make_held_out(self) -> HeldOut | None:
        training, spec = self.training, self.spec
        if training.eval_rows is None:
            return None
        manifest, batch_size = training.prepared.manifest, training.fitted.eval.per_device_eval_batch_size
        return HeldOut(
            rows=training.eval_rows,
            tokenizer=training.tokenizer,
            rewards=self.rewards,
            gold=spec.gold,
            reference=self.reference_view,
            limits=(manifest["stop_ids"], manifest["pad_id"], spec.max_new_tokens, batch_size),
            bf16=training.bf16,
        )

    # -------------------------------------------------------------------------------------------- an update begins

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass on the micro-batch whose turn it is."""
        micro = self._next_micro_batch()
        began = time.perf_counter()
        loss = super().training_step(model, self._make_inputs(micro), num_items_in_batch)
        self._seconds["update"] += time.perf_counter() - began
        return loss

    def _prepare_input(self, data: Any) -> Any:
        """Moved to the device alone. Under DeepSpeed the library would also cast log-probabilities, values, advantages and returns to
        the dtype of the weights, and bfloat16 moves a ratio by per cents (transformers 5.23)."""
        return send_to_device(data, self.args.device)

    def _next_micro_batch(self) -> MicroBatch:
        schedule = self.schedule
        if self._micro is None:
            self._micro = self.state.global_step * schedule.accumulation
        within = self._micro % (schedule.steps_per_update * schedule.accumulation)
        if within == 0:
            update = self.state.global_step // schedule.steps_per_update
            with shrinking(ROLLOUT, self.training.fitted.ppo.per_device_rollout_batch_size, self.training.context):
                self._rollout = self._make_rollout(update)
            self._plan = self._make_plan(self._rollout, update)
            if self.guard is not None:
                self.guard.beat("forward and backward")
        self._micro += 1
        return self._plan[within]

    def _make_plan(self, rollout: Rollout, update: int) -> list[MicroBatch]:
        return plan_update(
            [len(row) for row in rollout.rows],
            rollout.lengths,
            num_epochs=self.spec.num_ppo_epochs,
            global_batch_size=self.schedule.global_batch_size,
            per_device_batch_size=self.schedule.per_device_batch_size,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            seed=self.training.recipe.seed,
            update=update,
        )

    def _make_rollout(self, update: int) -> Rollout:
        """Answers the prompts of an update and settles everything that its steps read. Every rank gets the same."""
        places = self.training.order[update * self.schedule.rollouts : (update + 1) * self.schedule.rollouts]
        prompts = self.training.prepared.train.select(places)
        with self._timed("rollout"):
            completions = self._sample(prompts["prompt_ids"], update)
            rows = [[*prompt, *one.ids] for prompt, one in zip(prompts["prompt_ids"], completions, strict=True)]
            prompt_lengths = [len(prompt) for prompt in prompts["prompt_ids"]]
            table = self._look_at(rows, prompt_lengths)
        with self._timed("score"):
            raw = torch.tensor(self._score(prompts, completions))
        ended = torch.tensor([one.stopped for one in completions])
        scores = shape_scores(raw, ended, self.shaping, self.scale)
        advantages, returns, rewards = estimate_advantages(table, scores, self.kl.value, self.shaping)
        penalty = self.shaping.missing_eos_penalty
        metrics = describe_rollout(table, raw, ended, rewards, returns, self.kl, penalty)
        weights = None
        if not self.sampler.is_policy:
            cap = self.spec.importance_cap or DEFAULT_CAP
            weights, further = weigh_tokens(table, [one.logps for one in completions], cap)
            metrics |= further
        rollout = Rollout(
            rows, prompt_lengths, table.mask, table.logps, table.values, advantages, returns, weights, metrics
        )
        self._take_note(rollout, update)
        return rollout

    def _sample(self, prompts: list[list[int]], update: int) -> list[Completion]:
        version = self.state.global_step
        seed = (self.training.recipe.seed * 1_000_033 + update) % 2**32
        completions = self.sampler.sample(prompts, seed=seed, version=version)
        check_completions(completions, len(prompts), version, self.sampler.is_policy)
        return completions

    def _look_at(self, rows: list[list[int]], prompt_lengths: list[int]) -> Any:
        return look_at_tokens(
            self.model,
            self._reference_logps,
            rows,
            prompt_lengths,
            pad_id=self.pad_id,
            batch_size=self.training.fitted.ppo.per_device_rollout_batch_size,
            temperature=self.spec.temperature,
            bf16=self.training.bf16,
            device=self.accelerator.device,
        )

    def _reference_logps(self, inputs: dict[str, Any]) -> Tensor:
        if self.reference is None:
            return self.model("reference", **inputs)
        return token_logps(self.reference, **inputs)[0]

    def _score(self, prompts: Any, completions: list[Completion]) -> list[float]:
        texts = [
            self.training.tokenizer.decode(one.ids[:-1] if one.stopped else one.ids, skip_special_tokens=True)
            for one in completions
        ]
        rows = [
            EvalRow(columns=json.loads(columns), completion=text, stopped=one.stopped)
            for columns, text, one in zip(prompts["columns_json"], texts, completions, strict=True)
        ]
        return self.rewards.score(read_asked(prompts, range(len(prompts))), rows)

    def _take_note(self, rollout: Rollout, update: int) -> None:
        """Metrics, counts, the controller and alerts of a new rollout."""
        for name, value in rollout.metrics.items():
            if math.isfinite(value):  # without any variance there is none to explain
                self._once[name].append(value)
        self.tokens.total += sum(map(len, rollout.rows))
        self.tokens.generated += sum(rollout.lengths)
        self._say(self.watch.look_at_update(rollout.metrics), f"update {update + 1}")
        self.kl.update(rollout.metrics["objective/kl"], len(rollout.rows))

    def _say(self, alerts: Iterator[Alert], moment: str) -> None:
        """Says alerts, notes them for the report, and ends the run where the recipe wants it.

        Raises:
            DivergedError: the recipe stops on one.
        """
        for alert in alerts:
            text = f"{moment}: alert {alert.name}: {alert.text}"
            self._once[f"alert/{alert.name}"].append(1.0)
            if self.args.process_index == 0:
                logger.warning("%s", text)
            if not any(f"alert {alert.name}:" in note for note in self.training.notes):
                self.training.notes.append(text)
            if alert.name in self.spec.stop_on:
                raise DivergedError(f"{text} ppo.stop_on names it, so the run ends here; the checkpoints are kept.")

    # -------------------------------------------------------------------------------------------- the loss

    def _make_inputs(self, micro: MicroBatch) -> dict[str, Any]:
        rollout, rows = self._rollout, micro.rows
        inputs = collate(
            [rollout.rows[row] for row in rows], [rollout.prompt_lengths[row] for row in rows], self.pad_id
        )
        names = ("old_logps", "old_values", "advantages", "returns")
        flat = {name: rollout.flat(getattr(rollout, name), rows) for name in names}
        if rollout.weights is not None:
            flat["weights"] = rollout.flat(rollout.weights, rows)
        # Engines average gradients over ranks, and the sum over all ranks is wanted.
        return inputs | flat | {"denominator": micro.num_tokens / self.args.world_size}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The clipped objective of policy and critic on one micro-batch, as its share of the mini-batch's mean over tokens."""
        spec, denominator = self.spec, inputs["denominator"]
        passed = {name: inputs[name] for name in ("input_ids", "attention_mask", "before")}
        logps_N, entropy_N, values_N = model("update", **passed, temperature=spec.temperature)
        policy_loss, sums = losses.policy_loss(
            logps_N,
            inputs["old_logps"],
            inputs["advantages"],
            denominator=denominator,
            clip_low=spec.cliprange,
            clip_high=spec.cliprange_high or spec.cliprange,
            weights_N=inputs.get("weights"),
        )
        value_loss, value_sums = losses.value_loss(
            values_N, inputs["old_values"], inputs["returns"], denominator=denominator, clip=spec.cliprange_value
        )
        self._add_up(
            sums | value_sums,
            tokens=logps_N.numel(),
            policy=policy_loss.detach() * denominator,
            value=value_loss.detach() * denominator,
            entropy=entropy_N.sum(),
        )
        update = self.state.global_step // self.schedule.steps_per_update
        # Multiplied and not left out: engines wait for a gradient of every parameter.
        share = 0.0 if update < spec.critic_warmup_updates else 1.0
        return share * policy_loss + spec.vf_coef * value_loss

    def _add_up(self, sums: dict[str, Tensor], **further: Any) -> None:
        both = {name: float(value) for name, value in (sums | further).items()}
        self._sums += torch.tensor([both[name] for name in _SUMS], dtype=torch.float64)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        created = super().create_optimizer(model)
        self._owners = split_groups(created, self.model, self.spec.critic_learning_rate or self.args.learning_rate)
        return created

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        created = super().create_scheduler(num_training_steps, optimizer)
        if self.spec.critic_warmup_updates:
            hold_policy(created, self._owners, self.spec.critic_warmup_updates * self.schedule.steps_per_update)
        return created

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        by_owner = {owner: group["lr"] for owner, group in zip(self._owners, self.optimizer.param_groups, strict=True)}
        self._rates = {"lr": by_owner["policy"], "lr_critic": by_owner["critic"]}  # of the step that comes now
        if self.is_deepspeed_enabled:  # the engine clips once, over both
            return super()._clip_grad_norm(model)
        norm, norms = clip_apart(self.accelerator, self.accelerator.unwrap_model(model), self.args.max_grad_norm)
        for name, value in norms.items():
            self._once[name].append(value)
        return norm

    # -------------------------------------------------------------------------------------------- lines and evaluations

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the metrics since the last line to a line of training."""
        if "loss" in logs:
            logs |= self._drain()
        super().log(logs, start_time)

    def _drain(self) -> dict[str, float]:
        sums = self.accelerator.reduce(self._sums.to(self.args.device), reduction="sum").tolist()
        total = dict(zip(_SUMS, sums, strict=True))
        mean = {name: value / max(total["tokens"], 1.0) for name, value in total.items()}
        metrics = {name: sum(values) / len(values) for name, values in self._once.items()}
        metrics |= {
            "policy/approxkl": mean["approx_kl"],
            "policy/clipfrac": mean["clipped"],
            "policy/entropy": mean["entropy"],
            "loss/policy": mean["policy"],
            "loss/value": mean["value"],
            "val/ratio": mean["ratio"],
            "val/ratio_var": max(mean["ratio_squared"] - mean["ratio"] ** 2, 0.0),
            "val/clipfrac": mean["value_clipped"],
        }
        metrics |= self._rates
        metrics |= {f"time/{name}": seconds for name, seconds in self._seconds.items()}
        self._sums.zero_()
        self._once.clear()
        self._seconds.clear()
        return metrics

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Greedy completions of the held-out prompts and their scores. Every rank must call it."""
        if self.held_out is None:
            return {}
        with shrinking(EVALUATION, self.training.fitted.eval.per_device_eval_batch_size, self.training.context):
            found, estimates = self.held_out.measure(self.policy_view)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self._say(
            self.watch.look_at_held_out(estimates["score"], estimates.get("gold")), f"step {self.state.global_step}"
        )
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - began

    # -------------------------------------------------------------------------------------------- checkpoints

    def rows_of_step(self, step: int) -> list[list[int]]:
        """Prompts that this rank's forward passes of an optimizer step read."""
        schedule = self.schedule
        update, within = divmod(step - 1, schedule.steps_per_update)
        first = within * schedule.accumulation
        places = self.training.order[update * schedule.rollouts :]
        return [places[list(micro.rows)].tolist() for micro in self._plan[first : first + schedule.accumulation]]

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        """Whoever asks for a checkpoint or an end within an update gets it when the update is done: a rollout is in no checkpoint."""
        if self.guard is not None:
            self.guard.after_step(grad_norm)
        self._save_due |= self.control.should_save
        self._stop_due |= self.control.should_training_stop
        whole = self.state.global_step % self.schedule.steps_per_update == 0
        self.control.should_save = self._save_due and whole
        self.control.should_training_stop = self._stop_due and whole
        if whole:
            self._save_due = self._stop_due = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_parts(self.model, folder, state_dict)
        state = {"kl": self.kl.state(), "scale": self.scale.state(), "watch": self.watch.state()}
        write_state(folder, state | {"tokens": vars(self.tokens), "notes": self.training.notes})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_parts(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if self.state.global_step % self.schedule.steps_per_update:
            raise ArtifactError(
                f"{checkpoint}: taken within an update of {self.schedule.steps_per_update} steps, whose completions are gone; one at "
                "the end of an update was expected. Move it away, and the same command goes on from the one before."
            )
        state = read_state(Path(checkpoint))
        self.kl.load(state["kl"])
        self.scale.load(state["scale"])
        self.watch.load(state["watch"])
        self.tokens = RolloutTokens(**state["tokens"])
        self.training.notes[:] = state["notes"]
        self.training.log.tokens = self.tokens
