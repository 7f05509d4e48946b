//! Compression framings: what clients' files may say, what they are pushed, frames compressed either way.

use trestle_tests::echo::ping;
use trestle_tests::frame::{self, FULL_SIZE, Mac};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{LAN_HOST, Layout};
use trestle_tests::raw::Volley;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::sessions::relaunch;
use crate::stations::{SOON, Station};

/// Each scenario with a server and clients of its own.
pub const SUITE: Suite = Suite {
    name: "compression",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout::default(), Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        clients_with_compression_are_led_away_from_it_by_a_server_without,
        frames_are_compressed_both_ways_where_both_ends_say_so,
        clients_that_compress_by_lzo_are_understood,
        clients_get_the_stub_they_are_to_have,
    ],
};

/// What arguments a client is started with, and what it is pushed for it.
type Client<'a> = (&'a [&'a str], &'a str);

fn clients_with_compression_are_led_away_from_it_by_a_server_without(site: &mut Site) -> Result<()> {
    let clients = [(&["--comp-lzo", "no"][..], "compress stub-v2"), (&["--compress"], "compress stub-v2")];
    serve(site, "", clients, every_frame_crosses)
}

fn frames_are_compressed_both_ways_where_both_ends_say_so(site: &mut Site) -> Result<()> {
    for (algorithm, plain) in [("lz4-v2", "compress stub-v2"), ("lz4", "compress stub-v2")] {
        let lines = format!("compress {algorithm}\nallow-compression yes");
        let compress = ["--compress", algorithm, "--allow-compression", "yes"];
        let pushed = format!("compress {algorithm}");
        serve(site, &lines, [(&compress[..], &pushed), (&[], plain)], |site| {
            every_frame_crosses(site)?;
            let (sent, received) = bytes_of_pings(site)?;
            assert!(sent < LITTLE && received < LITTLE, "{algorithm}: {sent} sent, {received} received");
            Ok(())
        })?;
    }
    Ok(())
}

fn clients_that_compress_by_lzo_are_understood(site: &mut Site) -> Result<()> {
    let compress = ["--comp-lzo", "yes", "--allow-compression", "yes"];
    let clients = [(&compress[..], "comp-lzo yes"), (&["--comp-lzo", "no"], "compress stub-v2")];
    serve(site, "comp-lzo\npush \"comp-lzo\"", clients, |site| {
        every_frame_crosses(site)?;
        let (sent, received) = bytes_of_pings(site)?;
        assert!(received < LITTLE, "it compresses: {received} received");
        assert!(sent > LITTLE, "nothing is compressed by LZO here: {sent} sent");
        Ok(())
    })
}

fn clients_get_the_stub_they_are_to_have(site: &mut Site) -> Result<()> {
    for (line, pushed) in [("compress", "compress stub"), ("comp-lzo no", "comp-lzo no")] {
        serve(site, line, [(&[][..], pushed), (&["--compress", "stub-v2"], pushed)], |site| {
            every_frame_crosses(site)
        })?;
    }
    Ok(())
}

/// Starts a server with `lines` in place of its compression, and both clients; checks what they are pushed.
fn serve(
    site: &mut Site,
    lines: &str,
    clients: [Client<'_>; 2],
    then: impl Fn(&mut Site) -> Result<()>,
) -> Result<()> {
    let without = SERVER_CONF.lines().filter(|line| !line.contains("compress"));
    site.start().config = without.chain(lines.lines()).map(|line| format!("{line}\n")).collect();
    site.start_gateway()?;
    for (number, (arguments, _)) in clients.into_iter().enumerate() {
        let agent = relaunch(site, number, arguments)?;
        site.agents.push(agent);
    }
    site.wait_connected()?;
    for (agent, (_, pushed)) in site.agents.iter().zip(clients) {
        assert!(agent.log().contains(&format!("PUSH_REPLY,{pushed},")), "{}", agent.log());
    }
    let done = then(site);
    site.agents.clear();
    done
}

/// Between both clients and the LAN, to addresses that begin as framings do, short, full and compressible.
fn every_frame_crosses(site: &mut Site) -> Result<()> {
    let [one, two, lan] = [Station::agent(site, 0)?, Station::agent(site, 1)?, Station::lan(site)?];
    for (from, to) in [(&one, &two), (&two, &one), (&one, &lan), (&lan, &one), (&lan, &two)] {
        for first in [0x50, 0x66, 0xfa] {
            let hers: Mac = [first, 0x01, 0x0a, 0, 0, 7];
            to.announce(hers)?;
            // Where it is must be known all along the way, or what is sent to where it was before is lost.
            assert!(from.port.expect(SOON, |frame| frame::source(frame) == hers).is_some(), "{hers:02x?}");
            for length in [60, FULL_SIZE] {
                let volley = Volley::new(hers, from.mac).of_length(length).of_count(5);
                let tally = volley.fly(&from.port, &to.port)?;
                assert!(tally.complete(), "{} to {hers:02x?} at {}: {tally:?}", from.name, to.name);
            }
        }
    }
    let echoes = ping(site.agent(0), site.address(1), 5, 1400)?;
    assert!(echoes.complete(), "{echoes:?}");
    Ok(())
}

/// More than ten compressed echoes of 1000 bytes take, and less than plain ones.
const LITTLE: u64 = 6_000;

/// What the clients are sent, and what they send, of ten compressible echoes between the first and the LAN.
fn bytes_of_pings(site: &mut Site) -> Result<(u64, u64)> {
    let gateway = site.gateway()?;
    let before = (gateway.sum_of_peers("tx_bytes")?, gateway.sum_of_peers("rx_bytes")?);
    let echoes = ping(site.agent(0), LAN_HOST, 10, 1000)?;
    assert!(echoes.complete(), "{echoes:?}");
    let gateway = site.gateway()?;
    Ok((gateway.sum_of_peers("tx_bytes")? - before.0, gateway.sum_of_peers("rx_bytes")? - before.1))
}
