"""Recipes in the manner of other projects, small, with what theirs are known to have."""

HANDBOOK_SFT = """
model_name_or_path: mistralai/Mistral-7B-v0.1
model_revision: main
torch_dtype: bfloat16
attn_implementation: flash_attention_2
chat_template: "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
dataset_mixture:
  datasets:
    - id: HuggingFaceH4/ultrachat_200k
      config: default
      split: train_sft
      columns:
        - messages
      weight: 0.5
    - id: HuggingFaceTB/smoltalk
      config: all
      split: train
      columns:
        - messages
      weight: 1.0
    - id: HuggingFaceH4/ultrachat_200k
      config: default
      split: test_sft
      columns:
        - messages
      weight: 1.0
  test_split_size: 1000
  seed: 0
bf16: true
gradient_accumulation_steps: 4
gradient_checkpointing: true
hub_model_id: mine
learning_rate: 2.0e-05
lr_scheduler_type: cosine
max_seq_length: 2048
num_train_epochs: 1
optim: rmsprop
per_device_train_batch_size: 16
push_to_hub: true
seed: 42
warmup_ratio: 0.1
"""
HANDBOOK_MIXER = """
model_name_or_path: mistralai/Mistral-7B-v0.1
dataset_mixer:
  org/chats: 0.5
  org/more: 1.0
dataset_splits:
  - train_sft
  - test_sft
learning_rate: 2.0e-05
max_seq_length: 2048
num_train_epochs: 1
"""
TRL_DPO = """
model_name_or_path: Qwen/Qwen3-0.6B
dataset_name: trl-lib/ultrafeedback_binarized
dataset_test_split: test
use_peft: true
lora_r: 32
lora_alpha: 16
beta: 1
loss_type: apo_zero
max_steps: 200
warmup_ratio: 0.1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
"""
LLAMA_FACTORY_SFT = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: identity,chats
template: qwen3_nothink
cutoff_len: 2048
output_dir: saves/here
logging_steps: 10
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
bf16: true
ddp_timeout: 180000000
"""
DATASET_INFO = {
    "identity": {"file_name": "identity.json", "columns": {"prompt": "question", "response": "answer"}},
    "chats": {
        "hf_hub_url": "org/chats",
        "subset": "nl",
        "formatting": "sharegpt",
        "columns": {"messages": "turns"},
        "tags": {"user_tag": "visitor", "assistant_tag": "assistant"},
    },
}
AXOLOTL_SFT = """
base_model: Qwen/Qwen3-32B
chat_template: qwen3
datasets:
  - path: mlabonne/FineTome-100k
    type: chat_template
    split: train[:20%]
    field_messages: conversations
    message_property_mappings:
      role: from
      content: value
val_set_size: 0.0
sequence_len: 2048
sample_packing: true
load_in_4bit: true
adapter: qlora
lora_r: 16
lora_alpha: 32
lora_target_modules:
  - q_proj
  - v_proj
wandb_project:
gradient_accumulation_steps: 2
micro_batch_size: 1
num_epochs: 1
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
fp16:
gradient_checkpointing: true
warmup_steps: 10
"""
AXOLOTL_REWARD = """
base_model: org/model
reward_model: true
center_rewards_coefficient: 0.01
datasets:
  - path: org/pairs
    type: bradley_terry.chat_template
sequence_len: 4096
micro_batch_size: 1
num_epochs: 3
optimizer: adamw_torch
lr_scheduler: linear
learning_rate: 0.00002
"""
