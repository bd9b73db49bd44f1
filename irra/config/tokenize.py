"""The section `tokenize` of params.yaml."""

from typing import Annotated

from pydantic import Field, model_validator

from irra.config.section import ConfigSection, Fraction, Seed, param

MAX_TEXT_LENGTH = 248  # to which LongCLIP extends CLIP's 77 positions, see irra.model.clip.extend_positions
TextLength = Annotated[int, Field(ge=8, le=MAX_TEXT_LENGTH)]
Draws = Annotated[int, Field(ge=0, le=10_000)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


class TokenizeConfig(ConfigSection):
    """Length of the token rows, and the masking cache for MLM."""

    text_length: TextLength = param(77, "tokens of a caption, with start and end, up to 248; longer ones are cut")
    mask_draws: Draws = param(60, "maskings per caption, which the epochs use in turn; 0: none, without MLM")
    mask_probability: Probability = param(0.15, "of a token to be chosen, for MLM to predict")
    masked_token_rate: Fraction = param(0.8, "of the chosen tokens: replaced by the mask")
    masked_token_unchanged_rate: Fraction = param(0.1, "of the chosen tokens: left as is; the rest become any token")
    seed: Seed = param(0, "of the maskings")

    @model_validator(mode="after")
    def _rates_are_shares_of_one(self) -> "TokenizeConfig":
        if self.masked_token_rate + self.masked_token_unchanged_rate > 1.0:
            raise ValueError("masked_token_rate + masked_token_unchanged_rate must not exceed 1")
        return self
