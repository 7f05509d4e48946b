//! `trestle status`: one screen that says whether all is well.

use std::fmt::Write as _;

use super::{
    AskArgs, Error, ask, drops, peers, ports,
    table::{duration, plain, plural},
};
use crate::management::status::{Datapath, Request, Status};

pub(super) fn run(args: &AskArgs) -> Result<(), Error> {
    ask::show(args, Request::Status, table)
}

pub(super) fn table(status: &Status) -> String {
    let mut text = String::new();
    for line in &status.health {
        // Writing to a string does not fail.
        let _ = writeln!(text, "health: {}", plain(line));
    }
    if let Some(left) = status.confirm_s {
        let _ = writeln!(text, "confirm: within {}, or everything is taken back", duration(left));
    }
    let _ = writeln!(
        text,
        "trestle {}, up {}, datapath {}",
        status.version,
        duration(status.uptime_s),
        match status.datapath {
            Datapath::AfXdp => "af-xdp",
            Datapath::Xdp => "xdp",
            Datapath::Socket => "socket",
        }
    );
    text.push_str(&listening(status));
    text.push_str(&ports::table(&status.ports));
    if !status.peers.is_empty() {
        let _ = write!(text, "\n{}", peers::table(&status.peers));
    }
    let _ = writeln!(text, "\n{}", drops::summary(&status.drops));
    text
}

fn listening(status: &Status) -> String {
    if status.datapath == Datapath::Xdp {
        return "no tunnels: ports of a bridge are made faster, nothing else\n\n".to_owned();
    }
    format!(
        "listening on {}; {} of at most {}\n\n",
        plain(&status.listen.join(", ")),
        plural(u64::try_from(status.peers.len()).unwrap_or(u64::MAX), "peer"),
        status.max_peers
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::status::example;

    #[test]
    fn the_screen_is_as_it_was_agreed() {
        assert_eq!(table(&example().status), include_str!("testdata/status.txt"));
    }

    #[test]
    fn an_accelerator_says_that_it_has_no_tunnels() {
        let mut status = example().status;
        status.peers.clear();
        status.datapath = Datapath::Xdp;
        let text = table(&status);
        assert!(text.contains("datapath xdp\nno tunnels: ") && !text.contains("listening"), "{text}");
    }

    #[test]
    fn what_is_wrong_comes_first_and_an_idle_gateway_is_short() {
        let mut status = example().status;
        status.peers.clear();
        status.drops.clear();
        status.health = vec!["ens5 takes XDP only generic; see docs/OPERATING.md".into()];
        assert_eq!(table(&status), include_str!("testdata/status-idle.txt"));
    }
}
