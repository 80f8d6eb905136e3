//! One picture: a row of bars for each tree, a column for each step.

use std::fmt::Write;

use super::quoted;
use super::table::seconds;
use crate::peers::Step;
use crate::results::{Campaign, Results};
use crate::trees::Tree;

const TREES: [Tree; 3] = [Tree::Docs, Tree::Media, Tree::Db];
const STEPS: [Step; 3] = [Step::First, Step::Unchanged, Step::Restore];
const PEERS: [&str; 8] = ["ghostsync", "restic", "rustic", "borg", "rclone", "rsync", "tar+zstd", "find"];
const FLOORS: [&str; 2] = ["tar+zstd", "find"];

const PANEL_WIDTH: usize = 290;
const NAME_WIDTH: usize = 76;
const BAR_WIDTH: usize = 160;
const BAR_HEIGHT: usize = 16;
const HEAD_HEIGHT: usize = 34;

const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.peer { fill: #b6bec9 } .floor { fill: #e3e7ec } .ours { fill: #1f7a5c }
@media (prefers-color-scheme: dark) {
  text { fill: #d6dde5 } .peer { fill: #5b6673 } .floor { fill: #39414b } .ours { fill: #35b586 }
}
";

/// The picture, if any of its trees was measured.
pub(super) fn draw(results: &Results) -> Option<String> {
    let mut body = String::new();
    let mut top = 8;
    for tree in TREES {
        let Some(campaign) = quoted(results, tree) else { continue };
        let panels = STEPS.map(|step| bars(campaign, step));
        for ((column, step), bars) in STEPS.iter().enumerate().zip(&panels) {
            panel(&mut body, column * PANEL_WIDTH + 8, top, &format!("{}, {}", tree.name(), step.title()), bars);
        }
        top += HEAD_HEIGHT + panels.iter().map(Vec::len).max().unwrap_or(0) * BAR_HEIGHT + 12;
    }
    let width = STEPS.len() * PANEL_WIDTH + 8;
    (!body.is_empty()).then(|| {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" height=\"{top}\" \
             role=\"img\">\n<title>Seconds of ghostsync and its peers; shorter is better</title>\n<style>{STYLE}</style>\n\
             {body}</svg>\n"
        )
    })
}

/// The seconds of every peer that can do this step.
fn bars(campaign: &Campaign, step: Step) -> Vec<(&'static str, f64)> {
    PEERS.into_iter().filter_map(|peer| Some((peer, campaign.seconds(peer, step)?))).collect()
}

fn panel(body: &mut String, left: usize, top: usize, head: &str, bars: &[(&str, f64)]) {
    let longest = bars.iter().map(|(_, seconds)| *seconds).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(body, "<text class=\"head\" x=\"{left}\" y=\"{}\">{head}, seconds</text>", top + 20);
    for (row, (peer, value)) in bars.iter().enumerate() {
        let y = top + HEAD_HEIGHT + row * BAR_HEIGHT;
        let class = match *peer {
            "ghostsync" => "ours",
            peer if FLOORS.contains(&peer) => "floor",
            _ => "peer",
        };
        let width = (value / longest * BAR_WIDTH as f64).max(1.0);
        let begin = left + NAME_WIDTH;
        let _ = writeln!(body, "<text x=\"{left}\" y=\"{}\">{peer}</text>", y + 11);
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{begin}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\"/>",
            y + 1,
            BAR_HEIGHT - 4
        );
        let _ =
            writeln!(body, "<text x=\"{:.1}\" y=\"{}\">{}</text>", begin as f64 + width + 5.0, y + 11, seconds(*value));
    }
}
