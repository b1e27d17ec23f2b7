"""Effects of perturbations: estimates, predictions, interactions, dose curves, and their judges."""
