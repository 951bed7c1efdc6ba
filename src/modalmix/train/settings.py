"""Settings of the training loop that no model owns."""

from typing import Literal

from pydantic import Field

from modalmix.config import Config


class TrainConfig(Config):
    """Where and how to train, and what to select by. Epochs, lr, seed, patience, ... are the model's settings."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on; auto takes a GPU where there is one."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    """Numeric precision, in the words of Lightning Fabric."""
    devices: int = Field(default=1, ge=1)
    """Number of devices (processes). Each takes its share of the batches: a step sees devices x batch_size examples."""
    strategy: str = "auto"
    """How several devices work together, in the words of Lightning Fabric; auto is data parallel (DDP)."""
    metric: str = "recall@20"
    """Validation metric that selects the best epoch; higher is better."""
    mask: Literal["seen", "train", "none"] = "seen"
    """Known items left out of the validation ranking."""
    pool: Literal["auto", "all", "warm", "cold"] = "auto"
    """Items ranked at validation; auto is cold where the split holds out items whole, else all."""
    calibration: Literal["none", "norm", "offset", "norm-offset"] = "offset"
    """How the scores of cold items are brought to the scale of the warm ones, on validation, after training. With any
    but none a prior of counted transitions is weighed by what validation says, too."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""
    deterministic: bool = True
    """Use deterministic algorithms, so that the same seed gives the same bits."""
    tensorboard: bool = False
    """Also write TensorBoard events into the run folder (needs modalmix[tensorboard])."""
    progress: bool = True
    """Show a progress bar where the output is a terminal."""
