//! A file of `client-config-dir`: what one client is given that others are not.
//!
//! It has the form of `server.conf` and a few of its directives, each applied to a draft of its own, from which the
//! client's particulars are read. As with upstream, a line that cannot be followed is said in the log and does not keep
//! the client out. Source: options.c, directives with `OPT_P_INSTANCE`, `OPT_P_INHERIT`, `OPT_P_PUSH`, `OPT_P_COMP`.

use std::path::Path;

use openvpn::server::{Barred, Particulars, PushEdit};

use super::{
    apply, check_words, compression,
    error::Error,
    lexer, negotiate,
    server::Draft,
    table,
    words::{Directive, shown},
};

/// What the file gives, and which of its lines it does not.
#[derive(Clone, Debug, Default)]
pub struct ClientFile {
    /// What the client is given.
    pub particulars: Particulars,
    /// Lines that are not followed, with the reason.
    pub faults: Vec<Error>,
}

/// Reads a client's file. Does no IO: `file` only names it in errors.
///
/// # Errors
/// The file is no text of directives: nothing of it can be relied on, and it may say `disable`.
pub fn parse(bytes: &[u8], file: &Path) -> Result<ClientFile, Error> {
    let mut found = ClientFile::default();
    for line in lexer::lines(bytes, file)? {
        let mut draft = Draft::new(file);
        let directive = Directive { draft: &mut draft, line: &line };
        if let Err(fault) = follow(directive, &mut found.particulars) {
            found.faults.push(fault);
        }
    }
    Ok(found)
}

fn follow(d: Directive<'_>, particulars: &mut Particulars) -> Result<(), Error> {
    let (least, most) = match d.line.name.as_str() {
        "push-reset" | "disable" => (0, 0),
        "push" | "push-remove" | "max-routes-per-client" => (1, 1),
        "compress" | "comp-lzo" => (0, 1),
        "ifconfig-push" => (2, 3),
        _ => return Err(out_of_place(&d)),
    };
    check_words(&d, least, most)?;
    match d.line.name.as_str() {
        "push-reset" => particulars.push.push(PushEdit::Reset),
        "push-remove" => particulars.push.push(PushEdit::Remove(d.word(0)?.to_owned())),
        "push" => return push(d, particulars),
        "disable" => particulars.barred = Some(Barred::Disabled),
        "ifconfig-push" => particulars.address = Some((d.address(0)?, d.netmask(1)?)),
        "compress" => return compress(d, compression::compress, particulars),
        "comp-lzo" => return compress(d, compression::comp_lzo, particulars),
        _ => {
            let Directive { draft, line } = d;
            apply::max_routes_per_client(Directive { draft: &mut *draft, line })?;
            particulars.max_stations = Some(draft.server.max_macs_per_peer);
        }
    }
    Ok(())
}

fn compress(
    d: Directive<'_>,
    apply: fn(Directive<'_>) -> apply::Done,
    particulars: &mut Particulars,
) -> Result<(), Error> {
    let Directive { draft, line } = d;
    apply(Directive { draft: &mut *draft, line })?;
    particulars.compress = Some(draft.server.compress);
    Ok(())
}

fn push(d: Directive<'_>, particulars: &mut Particulars) -> Result<(), Error> {
    let Directive { draft, line } = d;
    let compression = draft.server.compress;
    negotiate::push(Directive { draft: &mut *draft, line })?;
    particulars.push.extend(draft.server.push.drain(..).map(PushEdit::Add));
    if draft.server.compress != compression {
        particulars.compress = Some(draft.server.compress);
    }
    Ok(())
}

/// Source: options.c `VERIFY_PERMISSION`, multi.c for `iroute`.
fn out_of_place(d: &Directive<'_>) -> Error {
    let name = shown(&d.line.name);
    match d.line.name.as_str() {
        "iroute" | "iroute-ipv6" => d.error(
            format!("`{name}` is rejected: it works with tun-style tunnels only"),
            "take the line out: what stands behind a client is learnt from its frames",
        ),
        "ifconfig-ipv6-push" | "config" | "vlan-pvid" | "ping" | "ping-restart" | "ping-exit"
        | "inactive" | "session-timeout" | "auth-token" | "override-username" | "echo" => {
            d.error(format!("`{name}` comes later in a client's file"), "take the line out for now")
        }
        known if table::class(table::DIRECTIVES, known).is_some() => d.error(
            format!("`{name}` cannot be used in a client's file"),
            "write it into the server's file, or `push` it",
        ),
        _ => d.error(format!("`{name}` is not a directive of OpenVPN"), "correct it or take the line out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ClientFile {
        parse(text.as_bytes(), Path::new("ccd/agent")).unwrap()
    }

    #[test]
    fn a_clients_file_is_read_in_order() {
        let found = file(
            "# of the agent in the cellar\nifconfig-push 10.0.0.9 255.255.255.0\npush-reset\n\
             push \"route 10.9.0.0 255.255.0.0\"\npush-remove ping\nmax-routes-per-client 3\ncompress lz4-v2\n",
        );
        assert!(found.faults.is_empty(), "{:?}", found.faults);
        let Particulars { barred, address, push, compress, max_stations } = found.particulars;
        assert_eq!(address, Some(("10.0.0.9".parse().unwrap(), "255.255.255.0".parse().unwrap())));
        assert_eq!(
            push,
            [
                PushEdit::Reset,
                PushEdit::Add("route 10.9.0.0 255.255.0.0".into()),
                PushEdit::Remove("ping".into()),
            ]
        );
        assert_eq!((barred, max_stations, compress.is_some()), (None, Some(3), true));
    }

    #[test]
    fn lines_that_cannot_be_followed_are_named_and_the_others_count() {
        let found =
            file("iroute 10.0.0.0 255.0.0.0\nport 443\nfrobnicate\nifconfig-push x y\ndisable\npush a,b\n");
        let faults: Vec<String> = found.faults.iter().map(ToString::to_string).collect();
        for (fault, words) in faults.iter().zip([
            "ccd/agent:1: `iroute` is rejected: it works with tun-style tunnels only",
            "ccd/agent:2: `port` cannot be used in a client's file",
            "ccd/agent:3: `frobnicate` is not a directive",
            "ccd/agent:4: `x` is not an IPv4 address",
            "ccd/agent:6: a pushed option cannot hold a comma",
        ]) {
            assert!(fault.starts_with(words), "{fault}");
        }
        assert_eq!(faults.len(), 5);
        assert_eq!(found.particulars.barred, Some(Barred::Disabled));
        assert_eq!(found.particulars.address, None);
    }

    #[test]
    fn an_address_needs_a_netmask() {
        assert_eq!(file("ifconfig-push 10.0.0.9 10.0.0.1\n").faults.len(), 1);
        assert_eq!(file("ifconfig-push 10.0.0.9\n").faults.len(), 1);
        assert!(file("ifconfig-push 10.0.0.9 255.255.255.0 10.0.0.8\n").particulars.address.is_some());
    }

    #[test]
    fn an_empty_file_gives_nothing_and_a_file_that_is_no_text_is_an_error() {
        assert_eq!(file("").particulars, Particulars::default());
        assert!(parse(b"disable\n\xff\n", Path::new("f")).is_err());
        assert!(parse(b"push \"open\n", Path::new("f")).is_err());
    }
}
