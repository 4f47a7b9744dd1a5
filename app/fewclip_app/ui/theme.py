"""Theme and style of the page. System fonts and inline styles: the browser asks nobody else."""

from __future__ import annotations

from typing import Any

import gradio as gr

CSS = """
.gradio-container { max-width: 1120px !important; margin: 0 auto !important; }
.gradio-container, .gradio-container .app, .gradio-container .app > .wrap, .gradio-container main,
.gradio-container main > .column { width: 100% !important; min-width: 0 !important; }
.fc-head h1 { font-size: 1.75rem; margin: 0.25rem 0 0.1rem; }
.fc-head p, .fc-lead p { color: var(--body-text-color-subdued); margin: 0; }
.fc-step { border: 1px solid var(--border-color-primary); border-radius: 14px;
  padding: 18px 20px 20px !important; background: var(--background-fill-primary); gap: 14px; }
.fc-step h2 { display: flex; align-items: center; gap: 10px; margin: 0; font-size: 1.25rem; }
.fc-step h2 span { display: inline-grid; place-items: center; width: 1.7em; height: 1.7em;
  border-radius: 50%; background: var(--fc-accent); color: #fff; font-size: .85rem; flex: none; }
.fc-step h3 { margin: .6rem 0 .3rem; font-size: 1rem; }
:root { --fc-accent: #2f5fd0; --fc-good: #1b7f4d; --fc-bad: #b3261e; --fc-warn: #8a5a00;
  --fc-right: #2f5fd0; --fc-wrong: #b3261e; }
.dark { --fc-accent: #4f7df0; --fc-good: #57c98d; --fc-bad: #ff8a80; --fc-warn: #f0c060; }
.fc-empty { border: 1.5px dashed var(--border-color-primary); border-radius: 10px; padding: 16px;
  color: var(--body-text-color-subdued); }
.fc-note { border-left: 4px solid var(--fc-warn); padding: 6px 12px; margin: 4px 0;
  background: var(--background-fill-secondary); border-radius: 0 8px 8px 0;
  overflow-wrap: anywhere; }
.fc-note.error { border-color: var(--fc-bad); } .fc-note.ok { border-color: var(--fc-good); }
.fc-note ul { margin: 4px 0 0 1.1em; padding: 0; list-style: disc; }
.fc-card { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 10px
  !important; gap: 8px; background: var(--background-fill-secondary); }
.fc-actions { display: grid !important; gap: 10px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.fc-cards { display: grid !important; grid-template-columns: repeat(auto-fill, minmax(min(100%,
  250px), 1fr)); gap: 12px; }
.fc-photos .grid-container, .fc-wrong .grid-container { gap: 4px !important;
  grid-template-columns: repeat(auto-fill, minmax(58px, 1fr)) !important; }
.fc-photos .grid-container, .fc-wrong .grid-container { grid-auto-rows: min-content !important;
  grid-template-rows: none !important; align-content: start; }
.fc-photos .gallery-item, .fc-wrong .gallery-item { height: auto !important; }
.fc-photos .grid-wrap { padding-top: 30px; }
.fc-photos .thumbnail-lg, .fc-wrong .thumbnail-lg { aspect-ratio: 1; height: auto !important; }
.fc-wrong .caption-label { max-width: 100%; white-space: normal; font-size: .72rem; left: 0;
  right: 0; bottom: 0; text-align: center; line-height: 1.2; }
.fc-card [aria-label=Clear] { display: none; }
.fc-figures { display: flex; flex-wrap: wrap; gap: 12px; }
.fc-figure { flex: 1 1 180px; border: 1px solid var(--border-color-primary); border-radius: 10px;
  padding: 12px 14px; background: var(--background-fill-secondary); }
.fc-figure b { display: block; font-size: 1.7rem; line-height: 1.2; }
.fc-figure small { color: var(--body-text-color-subdued); }
.fc-bar { display: grid; grid-template-columns: minmax(0, 9em) 1fr 3.6em; gap: 10px;
  align-items: center; margin: 5px 0; }
.fc-bar > span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.fc-bar > span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.fc-track { height: 12px; border-radius: 6px; background: var(--border-color-primary);
  overflow: hidden; }
.fc-fill { height: 100%; border-radius: 6px; background: var(--fc-accent); }
.fc-unknown .fc-fill { background: var(--body-text-color-subdued); }
.fc-answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px),
  1fr)); gap: 12px; }
.fc-answer { display: flex; gap: 14px; border: 1px solid var(--border-color-primary);
  border-radius: 10px; padding: 12px; background: var(--background-fill-secondary);
  align-items: flex-start; min-width: 0; }
.fc-answer img { width: 84px; height: 84px; object-fit: cover; border-radius: 8px; flex: none; }
.fc-answer > div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.fc-answer strong { font-size: 1.15rem; }
.fc-answer.fc-unknown strong { color: var(--fc-warn); }
.fc-scroll { overflow-x: auto; }

.fc-step .fc-table { border: 0; border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
.fc-step .fc-table th, .fc-step .fc-table td { padding: 5px 10px; text-align: right;
  border: 0; border-bottom: 1px solid var(--border-color-primary); }
.fc-step .fc-table tr, .fc-step .fc-matrix tr { border: 0; }
.fc-step .fc-table :is(th, td):first-child { text-align: left; }
.fc-step .fc-matrix { border: 0; width: auto; border-collapse: separate; border-spacing: 2px;
  font-size: .85rem; font-variant-numeric: tabular-nums; }
.fc-step .fc-matrix :is(th, td) { border: 0; }
.fc-step .fc-matrix td { padding: 0; min-width: 2.1em; height: 2.1em; text-align: center;
  border-radius: 4px; }
.fc-matrix th { font-weight: 500; text-align: right; padding: 0 6px; max-width: 9em;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.fc-matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  max-height: 8em; padding: 4px 0; }
.fc-step .html-container { padding: 0; }
.fc-step .block:has(> .html-container > .prose:empty) { display: none; }
.fc-job { display: grid; gap: 6px; }
.fc-job .fc-fill { transition: width .3s; }
.fc-job .fc-busy { width: 30%; animation: fc-busy 1.6s infinite alternate ease-in-out; }
@keyframes fc-busy { to { margin-left: 70%; } }
@media (prefers-reduced-motion: reduce) { .fc-job .fc-busy { animation: none; } }
.fc-job .fc-line { display: flex; justify-content: space-between; flex-wrap: wrap; gap: 4px 16px; }
.fc-chart { width: 100%; max-width: 460px; height: auto; display: block; }
.fc-chart text { fill: var(--body-text-color-subdued); font-size: 11px; }
.fc-chart .axis { stroke: var(--border-color-primary); } .fc-chart .line { fill: none;
  stroke: var(--fc-accent); stroke-width: 2; } .fc-chart .dot { fill: var(--fc-accent); }
.fc-wrong .grid-container { grid-template-columns: repeat(auto-fill, minmax(92px, 1fr))
  !important; }
.fc-methods { margin: 0; display: grid; gap: 2px 12px; grid-template-columns: max-content 1fr; }
.fc-methods dt { font-weight: 600; } .fc-methods dd { margin: 0; }
:focus-visible { outline: 3px solid var(--fc-accent) !important; outline-offset: 2px; }
@media (max-width: 520px) {
  .gradio-container { padding: 8px !important; }
  .fc-step { padding: 14px 12px !important; }
  .fc-cards { grid-template-columns: 1fr 1fr; gap: 8px; }
  .fc-card { padding: 6px !important; }
  .fc-bar { grid-template-columns: minmax(0, 4.6em) 1fr 3.2em; gap: 6px; }
  .fc-answer { gap: 10px; padding: 10px; } .fc-answer img { width: 60px; height: 60px; }
}
"""


def theme() -> gr.themes.Base:
    """One blue, the system's own fonts, and greys that can be read (WCAG AA)."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "Liberation Mono", "monospace"],
    ).set(
        body_background_fill="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
    )


# Gradio's own words, where they say too little or are missing.
WORDS = {
    "upload_text.drop_gallery": "Drop images here",
    "upload_text.click_to_upload": "choose files",
    "common.webcam": "Take a photo",
}


def mount_options() -> dict[str, Any]:
    """For `gr.mount_gradio_app` and `launch`: the page's looks, and that it keeps to itself."""
    return {
        "theme": theme(),
        "i18n": gr.I18n(en=WORDS),
        "css": CSS,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "show_error": False,
    }
