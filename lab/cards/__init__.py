"""The cards in `model_cards/`."""
