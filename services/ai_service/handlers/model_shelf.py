"""The model in use, and why there is none."""

from __future__ import annotations

from services.ai_service.domain.forecasts import ModelStage
from services.ai_service.ports import Forecaster
from shared.settings import TradingMode


class ModelShelf:
    """Holds the one model that the service forecasts with.

    Attributes:
        state: One line for ``/health``: what the model does, or why there is none.
    """

    def __init__(self, mode: TradingMode) -> None:
        self._mode = mode
        self._model: Forecaster | None = None
        self.state = "no model yet"

    @property
    def model(self) -> Forecaster | None:
        """The model, whether or not it may trade."""
        return self._model

    @property
    def trading_model(self) -> Forecaster | None:
        """The model that may give signals in this mode; None means silence."""
        return self._model if self._model is not None and self.may_trade(self._model.card.stage) else None

    def may_trade(self, stage: ModelStage) -> bool:
        """Tell whether a model of ``stage`` may give signals: a bootstrap model on paper only."""
        return stage is ModelStage.CHAMPION or self._mode is TradingMode.PAPER

    def put(self, model: Forecaster) -> None:
        """Forecast with ``model`` from now on."""
        self._model = model
        card = model.card
        self.state = f"{card.model_id} {card.version} ({card.stage})"
        if not self.may_trade(card.stage):
            self.state += f": silent, TRADING_MODE={self._mode} needs a champion and this is a {card.stage} model"
