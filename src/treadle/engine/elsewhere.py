"""What other trainers call things, for the errors that people who come from them meet: Lightning, Keras, HF and others.

Without these tables an event of theirs would be a method that nobody calls, and a setting of theirs no near miss.
"""

from __future__ import annotations

EVENTS_ELSEWHERE = {
    **dict.fromkeys(("on_fit_start", "on_train_start", "on_train_begin", "on_fit_begin"), "pre_training"),
    **dict.fromkeys(("on_train_epoch_start", "on_epoch_start", "on_epoch_begin"), "pre_epoch"),
    **dict.fromkeys(("on_train_batch_start", "on_train_batch_begin", "on_batch_start", "on_batch_begin"), "pre_step"),
    **dict.fromkeys(("on_train_step_start", "on_step_begin"), "pre_step"),
    **dict.fromkeys(("on_before_optimizer_step", "on_pre_optimizer_step", "on_after_backward"), "pre_update"),
    **dict.fromkeys(("on_train_batch_end", "on_batch_end", "on_train_step_end", "on_step_end"), "post_step"),
    **dict.fromkeys(("on_train_epoch_end", "on_epoch_end"), "post_epoch"),
    **dict.fromkeys(("on_validation_start", "on_validation_epoch_start", "on_eval_start"), "pre_validation"),
    **dict.fromkeys(("on_validation_end", "on_validation_epoch_end", "on_eval_end", "on_evaluate"), "post_validation"),
    **dict.fromkeys(("on_train_end", "on_fit_end"), "post_training"),
    **dict.fromkeys(("on_save_checkpoint", "on_checkpoint_save"), "on_save"),
    **dict.fromkeys(("on_load_checkpoint", "on_checkpoint_load"), "on_load"),
}
"""Events of other trainers, and the one here that fires then."""

SETTINGS_ELSEWHERE = {
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs", "n_epochs"), "max_epochs"),
    **dict.fromkeys(("max_iters", "iterations", "train_steps"), "max_steps"),
    **dict.fromkeys(("max_duration",), "max_epochs or max_steps"),
    **dict.fromkeys(("per_device_train_batch_size", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("num_workers", "dataloader_num_workers"), "workers"),
    **dict.fromkeys(("limit_train_batches", "steps_per_epoch", "max_steps_per_epoch"), "limit_batches"),
    **dict.fromkeys(("limit_val_batches", "validation_steps", "eval_subset_num_batches"), "limit_validation_batches"),
    **dict.fromkeys(("accelerator", "devices", "no_cuda"), "device"),
    **dict.fromkeys(("fp16", "bf16", "amp", "mixed_precision"), "precision"),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps", "grad_accum"), "accumulate"),
    **dict.fromkeys(("gradient_clip_val", "max_grad_norm", "grad_clip", "clipnorm"), "clip_norm"),
    **dict.fromkeys(("clipvalue",), "clip_value"),
    **dict.fromkeys(("log_every_n_steps", "logging_steps"), "log_every"),
    **dict.fromkeys(("check_val_every_n_epoch", "val_check_interval", "eval_steps", "eval_interval"), "validate_every"),
    **dict.fromkeys(("save_steps", "save_interval"), "save_every"),
    **dict.fromkeys(
        ("save_top_k", "save_total_limit", "save_num_checkpoints_to_keep"), "keep_checkpoints or keep_best"
    ),
    **dict.fromkeys(("train_data", "train_dataset", "train_dataloader", "train_dataloaders"), "data"),
    **dict.fromkeys(("val_data", "val_dataloaders", "eval_dataset", "eval_dataloader"), "validation_data"),
    **dict.fromkeys(("callbacks", "callback", "logger", "loggers"), "hooks"),
    **dict.fromkeys(("default_root_dir", "output_dir", "save_folder"), "run_dir"),
    **dict.fromkeys(("ckpt_path", "resume_from_checkpoint", "autoresume"), "resume"),
}
"""Settings and arguments of other trainers, and what is said here."""
