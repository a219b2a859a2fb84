"""The faults of published code that the families of generators could repeat, each with the test that it would fail."""

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent.parent
FAULTS = {
    "SISS: at a share of 0 or 1 its weights are 0 times infinity": (
        "objectives/test_subtract.py::test_at_share_0_and_1_the_own_loss_is_the_direct_one"
    ),
    "SISS: its exponentials overflow where an item and its partner are far apart": (
        "objectives/test_subtract.py::test_weights_are_finite_where_the_sets_are_far_apart"
    ),
    "SISS: what is called all data lacks the forget set, so that the subtraction is not calibrated": (
        "objectives/test_subtract.py::test_what_is_read_follows_from_what_is_descended_on"
    ),
    "SISS: where all draws are of one side, both losses are zero": (
        "objectives/test_subtract.py::test_importance_sampling_is_unbiased_for_both_losses"
    ),
    "SISS: the norm of the subtracted gradient is a number that depends on the dimensions": (
        "objectives/test_surgery.py::test_gradients_scaled_alike_give_the_scaled_result"
    ),
    "GradDiff: beyond the forget set's share the loss has a pole": (
        "objectives/test_subtract.py::test_above_the_share_the_optimum_runs_away_and_below_it_does_not"
    ),
    "NegGrad: the loss has no minimum": (
        "objectives/test_subtract.py::test_a_loss_without_a_minimum_and_wrong_values_are_refused"
    ),
    "SalUn: the mask lies elsewhere than training looks for it": (
        "training/test_hooks.py::test_moments_are_kept_in_the_run_folder_and_taken_once"
    ),
    "SalUn: its default weight, of a sum beside a mean, destroys every class in other units": (
        "objectives/test_families.py::test_salun_s_default_weighs_a_mean_as_the_code_weighs_a_sum"
    ),
    "SalUn: the gradient is clipped before it is masked": (
        "training/test_hooks.py::test_a_clip_is_of_the_gradient_that_the_mask_lets_through"
    ),
    "SalUn, SFR-on: masks are of predictions with guidance, which training does not have": (
        "training/test_conditions.py::test_gradients_before_training_are_of_the_labels_that_training_asks_for"
    ),
    "SalUn: the next label may itself be a forgotten one": (
        "objectives/test_families.py::test_the_other_label_is_the_next_that_is_not_forgotten"
    ),
    "SFR-on: one Adam for both updates moves masked weights by the other's momentum": (
        "training/test_hooks.py::test_a_mask_holds_in_the_phases_that_it_is_for_and_momentum_of_others_does_not_leak"
    ),
    "SFR-on: its Fisher diagonal squares the gradients of batches": (
        "objectives/test_gradient_moments.py::test_the_fisher_of_batches_is_smaller_than_that_of_items"
    ),
    "SFR-on: joint masks stale gradients and then sets them to zero": (
        "objectives/test_families.py::test_sfr_on_makes_two_updates_of_which_the_first_is_masked_and_fades"
    ),
    "SFR-on: its factor of the forget loss cancels in an Adam of its own": (
        "training/test_hooks.py::test_a_phase_of_half_the_rate_moves_the_weights_half_as_far"
    ),
    "SFR-on: an average with a decay of 1e-4 is no average": (
        "training/test_ema.py::test_the_decay_warms_up_to_its_value"
    ),
    "Selective Amnesia: Fisher of gradients that are summed over times and then squared": (
        "objectives/test_anchors.py::test_the_weight_of_selective_amnesia_s_sums_is_the_one_that_its_card_and_the_anchors_tell"
    ),
    "Selective Amnesia: Fisher at images in [0, 1], where the model is of [-1, 1]": (
        "training/test_hooks.py::test_preparation_sees_items_in_the_range_of_training"
    ),
    "Selective Amnesia: the Fisher pass leaves labels out as training does, and its replays do not": (
        "training/test_conditions.py::test_gradients_before_training_are_of_the_labels_that_training_asks_for"
    ),
    "Selective Amnesia: the batch of the Fisher pass is the number of GPUs, none on a CPU": (
        "objectives/test_gradient_moments.py::test_moments_are_those_of_the_gradients_of_items_or_batches"
    ),
    "Selective Amnesia: raw weights are the start, while the average of training goes on": (
        "training/test_trainer.py::test_unlearning_starts_from_the_trained_weights_with_a_fresh_average"
    ),
    "VDU: weights that no checkpoint moved have no spread and an endless stiffness": (
        "objectives/test_anchors.py::test_several_models_give_their_mean_and_spread_with_a_floor"
    ),
    "SFD: clips, steps, and calls backward afterwards; gradients are never set to zero": (
        "training/test_hooks.py::test_every_step_is_along_the_gradient_of_its_own_batch_alone"
    ),
    "SFD: a time past the end of the list": (
        "diffusion/test_processes.py::test_ddpm_trains_on_every_label_and_on_labels_only"
    ),
    "SFD: a label in place of the forgotten one is drawn twice as often": (
        "training/test_hooks.py::test_a_conditional_model_replays_each_class_that_is_retained_under_its_label"
    ),
    "EraseDiff: every inner step reads the first batch of a new order": (
        "data/test_feed.py::test_starting_at_a_batch_gives_what_an_uninterrupted_pass_gives"
    ),
    "MSGM: Eq. 7 as printed trains on the forget set": (
        "objectives/test_optima.py::test_eq_7_as_printed_trains_on_the_forget_set"
    ),
    "MSGM: the released sign of Obtuse teaches the forget set": (
        "objectives/test_optima.py::test_the_released_sign_teaches_the_forget_set"
    ),
    "Task vectors: averaged weights minus raw ones": (
        "training/test_hooks.py::test_a_copy_is_tuned_from_the_weights_that_it_is_compared_with"
    ),
    "Scissorhands: weights of norms are drawn like those of linear layers": (
        "objectives/edits/test_importance.py::test_reinitialised_weights_are_drawn_as_their_layers_draw_them"
    ),
    "Influence: the sign, and a solve that did not converge": (
        "objectives/edits/test_influence.py::test_one_step_on_a_ridge_score_is_retraining"
    ),
    "Surgery: a retain gradient of zero": "objectives/test_surgery.py::test_a_zero_gradient_gives_a_finite_result",
    "Surgery: inner products in single precision": (
        "objectives/test_surgery.py::test_inner_products_are_taken_in_float64"
    ),
    "DNG: divides by the posterior's variance while its sampler adds noise of another": (
        "diffusion/test_guidance.py::test_a_step_moves_the_posterior_by_the_ratio_of_its_likelihoods"
    ),
    "DNG: the last step takes another variance": (
        "diffusion/test_guidance.py::test_the_posterior_along_a_path_is_the_exact_one"
    ),
    "DNG: the estimate exceeds 1": (
        "diffusion/test_guidance.py::test_a_step_moves_the_posterior_by_the_ratio_of_its_likelihoods"
    ),
    "Guidance of weight 0 is not quite the model": (
        "diffusion/test_guidance.py::test_guidance_without_weight_is_the_model_to_the_bit"
    ),
    "Negative guidance of a constant weight of 1 and more samples far from all data": (
        "diffusion/test_guidance.py::test_negative_guidance_subtracts_a_constant_share"
    ),
    "SPELL: moves samples that lie outside every ball": (
        "diffusion/test_guidance.py::test_a_shield_outside_all_balls_is_the_model_to_the_bit"
    ),
    "Safe denoiser: distances where squares belong, the first row's for all, and no weight": (
        "diffusion/test_guidance.py::test_a_safe_denoiser_moves_each_sample_away_from_its_own_kernel_mean"
    ),
    "A guided sample depends on the others of its batch": (
        "diffusion/test_guidance.py::test_a_guided_sample_depends_neither_on_batch_size_nor_mates"
    ),
    "ESD: a strength of 1 and more aims far from all data": (
        "objectives/test_targets.py::test_esd_tunes_a_copy_only_where_an_item_may_come_without_its_label"
    ),
    "Concept ablation: the taught prediction drifts with the student": (
        "objectives/test_targets.py::test_concept_ablation_teaches_a_forgotten_label_what_a_retained_one_gives"
    ),
    "Classifier guidance: training on equal shares shifts the logit": (
        "diffusion/test_guidance.py::test_a_trained_classifier_removes_most_of_the_forget_set"
    ),
    "Sliced score matching: directions of length 1 in the variance-reduced form": (
        "objectives/test_matching.py::test_directions_of_length_one_would_mislead_the_variance_reduced_form"
    ),
    "Sliced score matching: uniform numbers in place of normal ones": (
        "objectives/test_matching.py::test_directions_have_unit_covariance"
    ),
    "Sliced score matching: no second derivative through DDP": (
        "training/test_processes.py::test_two_processes_train_what_one_trains"
    ),
    "Conditions: the class is forgotten under its label, and the null condition still has it": (
        "training/test_conditions.py::test_a_teacher_is_asked_for_what_the_request_means_and_counts_on_a_resume"
    ),
    "DiT: the network drops labels by itself in training": (
        "diffusion/test_conditional.py::test_a_transformer_drops_no_labels_of_its_own_in_training"
    ),
    "peft: a fused adapter leaves names of its own in the saved weights": (
        "training/test_adapters.py::test_weights_with_the_adapter_added_give_what_the_adapted_network_gives"
    ),
    "peft: a target fits layers that were not meant": (
        "training/test_adapters.py::test_targets_choose_layers_and_one_that_fits_none_is_refused"
    ),
    "The base is copied in whatever mode the caller's model has": (
        "objectives/test_anchors.py::test_the_base_is_frozen_in_eval_mode_and_one_object"
    ),
}


@cache
def functions(file: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_test():
    named = {test.partition("::")[::2] for test in FAULTS.values()}
    assert [f"{file}::{name}" for file, name in sorted(named) if name not in functions(file)] == []
