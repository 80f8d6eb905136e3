//! Explores the commit protocol: `ghostsync-model bounded | whole | list | NAME…`. See README.md.

mod check;
mod detect;
mod finder;
// The product's own rules, not a copy. They need nothing but the standard library, so that the one file is taken in
// instead of the library with its hundreds of dependencies.
#[expect(dead_code, reason = "not every verdict of the product arises in the models")]
#[path = "../../crates/ghostsync-core/src/history/judge.rs"]
mod judge;
mod placements;
mod protocol;
mod report;
mod roll_back;
mod runs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (designs, controls) = (runs::designs(), runs::controls());
    let is_sound = match words.first().map(String::as_str) {
        Some("bounded") => {
            let bounded: Vec<_> = designs.into_iter().filter(|run| !run.is_large).collect();
            report::designs(&bounded) & report::controls(&controls)
        }
        Some("whole") => report::designs(&designs) & report::controls(&controls),
        Some("list") => {
            designs.iter().chain(&controls).for_each(|run| println!("{}", run.name));
            true
        }
        Some(_) => words.iter().all(|name| {
            let named = |run: &&runs::Run| run.name == *name;
            match designs.iter().chain(&controls).find(named) {
                Some(run) => report::steps(run),
                None => {
                    eprintln!("there is no run {name}");
                    false
                }
            }
        }),
        None => {
            eprintln!("ghostsync-model bounded | whole | list | NAME…");
            false
        }
    };
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
