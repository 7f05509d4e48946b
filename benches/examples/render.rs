//! Shows a run again: `cargo run -p trestle-bench --example render -- report.json [FOLDER]` prints its table, and writes
//! its page, as this tree makes them, into FOLDER.

use std::path::Path;
use std::process::ExitCode;

use trestle_bench::report;
use trestle_bench::results::{Report, SCHEMA_VERSION};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next() else {
        eprintln!("which report.json? Usage: render report.json [FOLDER]");
        return ExitCode::FAILURE;
    };
    match render(Path::new(&file), arguments.next().as_deref().map(Path::new)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn render(file: &Path, folder: Option<&Path>) -> Result<(), String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("reading {name}: {error}"))?;
    let run: Report = serde_json::from_str(&text).map_err(|error| format!("{name} is no report: {error}"))?;
    if run.schema_version != SCHEMA_VERSION {
        return Err(format!("{name} has schema {}, this program reads {SCHEMA_VERSION}", run.schema_version));
    }
    print!("{}", report::table::table(&run));
    folder.map_or(Ok(()), |folder| report::write(&run, folder)).map_err(String::from)
}
