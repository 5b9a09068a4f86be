"""The tab “Review”: the most suspicious pairs as cards, to be judged one by one."""

from __future__ import annotations

import re
from typing import Any, TypedDict

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import Choice, SampleId, Text, WholeNumber
from fiftyone_ecif.dataset.fields import AUDIT, CANDIDATES, FIELDS, WRONG_WORDS
from fiftyone_ecif.dataset.repair import fixes, review
from fiftyone_ecif.dataset.samples import everything
from fiftyone_ecif.plugin.forms import as_text, counted, dropdown, escaped, given
from fiftyone_ecif.plugin.operators.audit import in_words
from fiftyone_ecif.plugin.panel.pieces import image_address, picture, row
from fiftyone_ecif.plugin.panel.tab import Entry, Tab, event

CARDS = 4
"""Pairs on one page."""

AUDITED = 20
"""Pairs that are drawn at a time for an audit."""


class Card(TypedDict):
    """A pair to review: its image's address, its caption, how likely that is wrong, how vague it is, better ones."""

    id: str
    image: str
    text: str | None
    misalignment: float
    vagueness: float | None
    wrong_words: list[str]
    suggestion: str | None
    candidates: list[tuple[str, float]]


class ReviewTab(Tab):
    """The pairs that nobody has judged yet, a page of them at a time, with the answers that can be given."""

    name = "review"
    label = "Review"
    help = "the pairs one by one, the most suspicious first or those whose captions say the least."
    entries = (
        Entry("page", WholeNumber(), begins_with="view", first=0),
        Entry("order", Choice(review.ORDERS), "choose_order", kept=True, begins_with="run", first="misalignment"),
    )

    # Content

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Read one page of the pairs that wait for a review, in the chosen order."""
        state = ctx.panel.state
        if state.order not in _orders(ctx):
            state.order = "misalignment"
        waiting = review.to_review(base, state.run_key, state.order)
        total = len(waiting)
        state.page = min(state.page or 0, max(0, (total - 1) // CARDS))
        state.waiting, state.last_fixed = total, len(fixes.last_fixed(ctx.dataset))
        state.audited = _audited(ctx) if state.order == "audit" else None
        state.cards = _cards(waiting.skip(state.page * CARDS).limit(CARDS), state.run_key)

    # Layout

    def fields(self, state: Any) -> dict[str, Any]:
        return {"orders": {_order_name(state): state.order}}

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        names = row(root, "names")
        names.btn("words", label="Name wrong words", on_click=self.name_words, variant="outlined")
        names.btn("audit", label=f"Audit {AUDITED} random pairs", on_click=self.audit, variant="outlined")
        orders = _orders(ctx)
        if len(orders) > 1:
            row(root, "orders").enum(
                _order_name(state),
                list(orders),
                default=state.order,
                label="Order",
                view=dropdown(orders),
                on_change=self.choose_order,
            )
        if state.audited:
            root.md(escaped(state.audited), name="audited")
            row(root, "calibration").btn(
                "recalibrate", label="Recalibrate", on_click=self.recalibrate, variant="outlined"
            )
        cards, waiting, page = state.cards or [], state.waiting or 0, state.page or 0
        first = page * CARDS + 1
        last = first + len(cards) - 1
        pages = row(root, "pages")
        shown = f"{first:,} to {last:,} of {counted(waiting, 'pair')} to review" if cards else "No pairs left to review"
        pages.md(shown, name="shown")
        pages.btn("previous", label="Previous", on_click=self.previous_page, disabled=page == 0, variant="outlined")
        pages.btn("next", label="Next", on_click=self.next_page, disabled=last >= waiting, variant="outlined")
        if state.last_fixed:
            label = f"Undo last fix ({state.last_fixed:,})"
            pages.btn("undo", label=label, icon="undo", on_click=self.undo, variant="outlined")
        for number, card in enumerate(cards):
            self._lay_out_card(root, f"card_{number}", card)

    def _lay_out_card(self, root: types.Object, name: str, card: Card) -> None:
        """Show picture, caption and suggestion, and the answers that can be given."""
        frame = root.h_stack(name, gap=2, align_y="center", variant="outline", pad=1)
        params = {"id": card["id"]}
        picture(frame, card["image"], "the pair's image", self.panel.open_sample, params)
        body = frame.v_stack("body", gap=1)
        facts = [f"Probability that the caption is wrong: {card['misalignment']:.2f}"]
        if card["vagueness"] is not None:
            facts.append(f"Other pairs that say the same and look otherwise: {card['vagueness']:.2%}")
        body.md("  \n".join([_marked(card["text"] or "(no caption)", card["wrong_words"]), *facts]), name="text")
        for place, (text, probability) in enumerate(card["candidates"]):
            better = row(body, f"better_{place}", gap=1)
            chosen = text == card["suggestion"]
            better.btn(
                "accept",
                label="Accept",
                icon="check",
                on_click=self.accept,
                params=params if chosen else params | {"text": text},
                variant="contained" if chosen else "outlined",
            )
            better.md(f"**{escaped(text)}** ({probability:.2f})", name="text")
        answers: types.Object = row(body, "answers", gap=1)
        if not card["candidates"]:
            answers.btn("find", label="Suggest", icon="search", on_click=self.find, params=params, variant="outlined")
        answers.btn(
            "fine", label="Caption is fine", icon="thumb_up", on_click=self.fine, params=params, variant="outlined"
        )
        verdicts = row(body, "verdicts", gap=1)
        verdicts.btn(
            "empty", label="Says nothing", icon="more_horiz", on_click=self.empty, params=params, variant="outlined"
        )
        verdicts.btn("reject", label="Reject", icon="close", on_click=self.reject, params=params, variant="outlined")

    # Events

    @event
    def choose_order(self, ctx: foo.ExecutionContext) -> None:
        """Choose which pairs come first."""
        order = given(ctx, "value", Choice(review.ORDERS), "misalignment")
        review.to_review(ctx.dataset, ctx.panel.state.run_key, order)  # refuses an order that there is not
        ctx.panel.state.set({"order": order, "page": 0})
        self.panel.show(ctx)

    @event
    def audit(self, ctx: foo.ExecutionContext) -> None:
        """Draw pairs at random, some more than there are, and show them."""
        run_key = ctx.panel.state.run_key
        known = ctx.dataset.has_sample_field(AUDIT.name(run_key))
        drawn = len(review.audited(ctx.dataset, run_key)) if known else 0
        ecif.audit_sample(ctx.dataset, run_key, drawn + AUDITED)
        state = ctx.panel.state
        state.set({"order": "audit", "page": 0, "turns": (state.turns or 0) + 1})
        self.panel.changed(ctx, f"Drew {AUDITED} pairs at random: say of each whether its caption is fine")

    @event
    def recalibrate(self, ctx: foo.ExecutionContext) -> None:
        """Correct the probabilities by the verdicts on the drawn pairs."""
        ecif.load_results(ctx.dataset, ctx.panel.state.run_key).recalibrate()
        self.panel.changed(ctx, "Recalibrated the probabilities")

    @event
    def next_page(self, ctx: foo.ExecutionContext) -> None:
        """Show the next cards."""
        ctx.panel.state.page = (ctx.panel.state.page or 0) + 1
        self.panel.show(ctx)

    @event
    def previous_page(self, ctx: foo.ExecutionContext) -> None:
        """Show the previous cards."""
        ctx.panel.state.page = max(0, (ctx.panel.state.page or 0) - 1)
        self.panel.show(ctx)

    @event
    def accept(self, ctx: foo.ExecutionContext) -> None:
        """Replace a card's caption by the suggestion, or by another candidate."""
        pair, run_key, text = _pair(ctx), ctx.panel.state.run_key, given(ctx, "text", Text())
        if text is None:
            report = ecif.apply_suggestions(pair, run_key, by=ctx.user_id)
        else:
            report = ecif.choose_suggestion(pair, run_key, text, by=ctx.user_id)
        self.panel.changed(ctx, "Replaced the caption" if report.changed else f"Nothing was replaced: {report}")

    @event
    def find(self, ctx: foo.ExecutionContext) -> None:
        """Compute a suggestion for a card that has none."""
        found = ecif.load_results(ctx.dataset, ctx.panel.state.run_key).suggest(_pair(ctx))
        self.panel.changed(ctx, "Found a suggestion" if found else "No other caption in the dataset fits better")

    @event
    def name_words(self, ctx: foo.ExecutionContext) -> None:
        """Ask for the words that do not belong to their images."""
        self.panel.prompt(ctx, "name_wrong_words", run_key=ctx.panel.state.run_key)

    @event
    def fine(self, ctx: foo.ExecutionContext) -> None:
        """Mark a card's pair as fine."""
        ecif.mark_as_fine(_pair(ctx))
        self.panel.changed(ctx, "Marked the pair as fine")

    @event
    def empty(self, ctx: foo.ExecutionContext) -> None:
        """Mark a card's caption as one that says nothing about the image."""
        ecif.mark_as_empty(_pair(ctx))
        self.panel.changed(ctx, "Marked the caption as empty: the pair will be left out of the cleaned set")

    @event
    def reject(self, ctx: foo.ExecutionContext) -> None:
        """Mark a card's pair as wrong, and its suggestion too."""
        ecif.reject(_pair(ctx))
        self.panel.changed(ctx, "Rejected the pair: it will be left out of the cleaned set")

    @event
    def undo(self, ctx: foo.ExecutionContext) -> None:
        """Take back what the latest action replaced."""
        report = ecif.undo_fixes(fixes.last_fixed(ctx.dataset))
        self.panel.changed(ctx, f"Undo: {report}")


def _cards(shown: fo.DatasetView, run_key: str) -> list[Card]:
    """The cards of some pairs, in their order."""
    text_field = shown._dataset.get_run_info(run_key).config.text_field
    suggestion, misalignment = (FIELDS[name].name(run_key) for name in ("suggestion", "misalignment"))
    text = fixes.text_path(shown._dataset, text_field) if text_field else "id"
    columns = ["id", "filepath", text, misalignment, f"{suggestion}.label", f"{suggestion}.confidence"]
    listed = CANDIDATES.name(run_key)
    more = [_if_there(shown, name) for name in (FIELDS["vagueness"].name(run_key), WRONG_WORDS.name(run_key))]
    more += [_if_there(shown, listed, f".classifications.{part}") for part in ("label", "confidence")]
    found = zip(*shown.values(columns), *more, strict=True)
    return [
        Card(
            id=id, image=image_address(filepath), text=as_text(caption), misalignment=probability, vagueness=share,
            wrong_words=[str(word) for word in words or ()], suggestion=as_text(label),
            candidates=_candidates([(label, confidence), *zip(others or (), likely or (), strict=False)]),
        )
        for id, filepath, caption, probability, label, confidence, share, words, others, likely in found
    ]  # fmt: skip


def _order_name(state: Any) -> str:
    """What the choice of the order is called: the App's dropdowns heed what was not chosen there if they are new."""
    return f"order_{state.turns or 0}"


def _orders(ctx: foo.ExecutionContext) -> dict[str, str]:
    """The orders that there are: labels are not vague, nor was anything before it was known, and not all draw pairs."""
    run_key = ctx.panel.state.run_key
    field = {"vagueness": FIELDS["vagueness"], "audit": AUDIT}
    there = {order: ctx.dataset.has_sample_field(each.name(run_key)) for order, each in field.items()}
    return {order: words for order, words in review.ORDERS.items() if there.get(order, True)}


def _audited(ctx: foo.ExecutionContext) -> str:
    """What the verdicts on the drawn pairs say so far."""
    try:
        return in_words(ecif.load_results(ctx.dataset, ctx.panel.state.run_key).audit())
    except ValueError as error:
        return str(error)


def _if_there(shown: fo.DatasetView, name: str, part: str = "") -> list[Any]:
    """A field's values of some pairs, or a part of them, in their order; None where there is no such field."""
    return shown.values(name + part) if shown.has_sample_field(name) else [None] * len(shown)


def _candidates(found: list[tuple[Any, float | None]]) -> list[tuple[str, float]]:
    """The texts that a caption may be replaced by, each once, with their probabilities."""
    texts = {str(text): probability or 0.0 for text, probability in reversed(found) if text}
    return [(text, texts[text]) for text in dict.fromkeys(str(text) for text, _ in found if text)]


def _marked(caption: str, wrong: list[str]) -> str:
    """A caption as Markdown that shows it as it stands, bold; if some of its words are wrong, only these are."""
    parts = re.split("(" + "|".join(rf"\b{re.escape(word)}\b" for word in wrong) + ")", caption) if wrong else [caption]
    if len(parts) == 1:
        return f"**{escaped(caption)}**"
    return "".join(f"**{escaped(part)}**" if place % 2 else escaped(part) for place, part in enumerate(parts))


def _pair(ctx: foo.ExecutionContext) -> fo.DatasetView:
    """The pair of the card that the event is about, as a view."""
    id = given(ctx, "id", SampleId())
    pair = everything(ctx.dataset).select([] if id is None else [id])
    if not pair:
        raise ValueError("This sample was deleted in the meantime.")
    return pair
