//! Attaching the programs to the NIC and the host port, and what comes of it.

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpError, XdpMode,
    links::FdLink,
    tc::{self, SchedClassifierLink, TcAttachOptions, TcError},
    xdp::XdpLink,
};
use common::names;
use nix::libc;

use super::{
    interface,
    programs::Programs,
    refusal::{AttachError, MTU_NATIVE, chain, os_error},
};

/// Where the programs go.
#[derive(Clone, Copy, Debug)]
pub struct Uplink<'a> {
    /// Name of the NIC.
    pub nic: &'a str,
    /// XDP on the NIC; `None` with `--datapath socket`.
    pub xdp: Option<XdpChoice>,
    /// Name of the host port in bridge mode, where TC joins the two; `None` in underlay mode.
    pub host_port: Option<&'a str>,
}

/// Which XDP is wanted: `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum XdpChoice {
    /// Native, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack, with any driver.
    Generic,
}

/// Which XDP was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpGot {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

impl XdpGot {
    /// As `trestle status` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn mode(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Native => "native XDP",
            Self::Generic => "generic XDP",
        }
    }
}

/// How the TC programs are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcHold {
    /// By TCX links (Linux 6.6): they vanish with the process.
    Link,
    /// As filters of a clsact qdisc: they stay after SIGKILL, and pass everything once the heartbeat stops.
    Filter,
}

/// The attached programs; dropping it detaches them.
#[derive(Debug)]
#[must_use = "dropping it detaches the programs"]
pub struct Attachment {
    // Fields are dropped in this order: XDP first, so that its frames still find TC.
    xdp: Option<XdpHeld>,
    tc: Vec<TcHeld>,
}

#[derive(Debug)]
struct XdpHeld {
    got: XdpGot,
    native_refused: Option<AttachError>,
    _link: XdpLink,
}

impl Attachment {
    /// Which XDP was got; `None` without XDP.
    pub fn xdp(&self) -> Option<XdpGot> {
        self.xdp.as_ref().map(|held| held.got)
    }

    /// Why `--xdp auto` did not get native XDP.
    pub fn native_refused(&self) -> Option<&AttachError> {
        self.xdp.as_ref()?.native_refused.as_ref()
    }

    /// How TC programs are held; `None` without any.
    pub fn tc(&self) -> Option<TcHold> {
        self.tc.first().map(|held| held.hold())
    }

    /// Whether [`common::Settings::heartbeat_timeout_ns`] must be set and the heart beat.
    pub fn needs_heartbeat(&self) -> bool {
        self.tc() == Some(TcHold::Filter)
    }
}

/// The program on a port of a kernel bridge, held by a link; dropping it detaches it.
#[derive(Debug)]
#[must_use = "dropping it detaches the program"]
pub struct PortAttachment(XdpHeld);

impl PortAttachment {
    /// Which XDP was got.
    pub fn xdp(&self) -> XdpGot {
        self.0.got
    }

    /// Why [`XdpChoice::Auto`] did not get native XDP.
    pub fn native_refused(&self) -> Option<&AttachError> {
        self.0.native_refused.as_ref()
    }
}

impl Programs {
    /// Attaches what `uplink` asks for, or nothing: on an error all is detached again.
    ///
    /// XDP goes first, for it alone finds out whether another owner is there, before anything is changed. What is left
    /// of a killed gateway's TC filters is removed.
    pub fn attach(&mut self, uplink: &Uplink<'_>) -> Result<Attachment, AttachError> {
        self.attach_by(uplink, hold_tc)
    }

    /// [`Programs::attach`] as it is on kernels before 6.6, without TCX links, also where there are some.
    pub fn attach_with_filters(&mut self, uplink: &Uplink<'_>) -> Result<Attachment, AttachError> {
        self.attach_by(uplink, hold_filter)
    }

    fn attach_by(&mut self, uplink: &Uplink<'_>, hold: HoldTc) -> Result<Attachment, AttachError> {
        let mut attachment = Attachment { xdp: None, tc: Vec::new() };
        if let Some(choice) = uplink.xdp {
            attachment.xdp = Some(self.attach_xdp(names::XDP_NIC, uplink.nic, choice)?);
        }
        let Some(host_port) = uplink.host_port else { return Ok(attachment) };
        for (name, interface, direction) in [
            (names::TC_HOST_IN, host_port, TcAttachType::Ingress),
            (names::TC_NIC_IN, uplink.nic, TcAttachType::Ingress),
            (names::TC_NIC_OUT, uplink.nic, TcAttachType::Egress),
        ] {
            // What a killed gateway left where there are no links is known by its program's name. Most often nothing
            // is there; what cannot be removed shows at attaching.
            let _ = tc::qdisc_detach_program(interface, direction, name);
            let held = hold(self.classifier(name)?, interface, direction);
            attachment.tc.push(held.map_err(|error| tc_refusal(interface, &error))?);
        }
        Ok(attachment)
    }

    /// Puts a program that passes everything on `interface`, natively: a veth's far end needs one before frames can be
    /// sent to it by XDP.
    pub fn attach_pass(&mut self, interface: &str) -> Result<XdpLink, AttachError> {
        let program = self.xdp(names::XDP_PASS)?;
        hold_xdp(program, interface, XdpGot::Native)
    }

    /// Finds out whether `interface` takes an XDP program in this place, by one that passes everything, and takes it away
    /// again. Natively that may set the NIC up anew, twice.
    pub fn try_pass(&mut self, interface: &str, place: XdpGot) -> Result<(), AttachError> {
        hold_xdp(self.xdp(names::XDP_PASS)?, interface, place).map(drop)
    }

    /// Puts the program for a port of a kernel bridge on `interface`; dropping what comes of it takes it away. It
    /// passes everything until [`Programs::ports`] says otherwise.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach_port(&mut self, interface: &str, choice: XdpChoice) -> Result<PortAttachment, AttachError> {
        self.attach_xdp(names::XDP_PORT, interface, choice).map(PortAttachment)
    }

    fn attach_xdp(
        &mut self,
        program: &'static str,
        nic: &str,
        choice: XdpChoice,
    ) -> Result<XdpHeld, AttachError> {
        let program = self.xdp(program)?;
        let mut native_refused = None;
        if choice != XdpChoice::Generic {
            match hold_xdp(program, nic, XdpGot::Native) {
                Ok(link) => return Ok(XdpHeld { got: XdpGot::Native, native_refused: None, _link: link }),
                Err(error) if choice == XdpChoice::Native || !generic_may_do(&error) => return Err(error),
                Err(error) => native_refused = Some(error),
            }
        }
        let link = hold_xdp(program, nic, XdpGot::Generic)?;
        Ok(XdpHeld { got: XdpGot::Generic, native_refused, _link: link })
    }
}

/// Names of TC programs of others that TCX links hold on `interface`; none where the kernel has no TCX links, or does not
/// tell this process.
pub fn foreign_tc_programs(interface: &str) -> Vec<String> {
    const OURS: [&str; 3] = [names::TC_HOST_IN, names::TC_NIC_IN, names::TC_NIC_OUT];
    let ways = [TcAttachType::Ingress, TcAttachType::Egress];
    let there = ways.into_iter().filter_map(|way| SchedClassifier::query_tcx(interface, way).ok());
    let names = there
        .flat_map(|(_, programs)| programs)
        .map(|program| program.name_as_str().unwrap_or("?").to_owned());
    names.filter(|name| !OURS.contains(&name.as_str())).collect()
}

/// Whether what stands against native XDP does not stand against generic.
fn generic_may_do(error: &AttachError) -> bool {
    matches!(error, AttachError::NoNative { .. } | AttachError::Mtu { .. } | AttachError::Refused { .. })
}

fn hold_xdp(program: &mut Xdp, interface: &str, want: XdpGot) -> Result<XdpLink, AttachError> {
    let index = interface::index(interface)?;
    program
        .attach_to_if_index(index, want.mode())
        .and_then(|id| program.take_link(id))
        .map_err(|error| xdp_refusal(interface, want, &error))
}

fn xdp_refusal(interface: &str, want: XdpGot, error: &ProgramError) -> AttachError {
    let code = program_code(error);
    let mtu = interface::mtu(interface).unwrap_or(0);
    let interface = interface.to_owned();
    match (want, code) {
        (_, Some(libc::EBUSY | libc::EEXIST)) => AttachError::Occupied { interface },
        (_, Some(libc::EPERM | libc::EACCES)) => AttachError::Privilege { interface },
        (_, Some(libc::ENODEV)) => AttachError::NoInterface { interface },
        (XdpGot::Native, Some(libc::ERANGE)) => AttachError::Mtu { interface, mtu, cause: chain(error) },
        (XdpGot::Native, _) if mtu > MTU_NATIVE => AttachError::Mtu { interface, mtu, cause: chain(error) },
        (XdpGot::Native, Some(libc::EOPNOTSUPP)) => AttachError::NoNative { interface },
        _ => AttachError::Refused { what: want.what(), interface, cause: chain(error) },
    }
}

/// The error number of an attempt to attach: some of aya's errors do not name the one below as their source.
fn program_code(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::XdpError(XdpError::NetlinkError(error))
        | ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) | ProgramError::IOError(error) => error.raw_os_error(),
        error => os_error(error),
    }
}

/// Attaches a TC program to an interface.
type HoldTc = fn(&mut SchedClassifier, &str, TcAttachType) -> Result<TcHeld, ProgramError>;

/// A TC program in its place; dropping it takes it away.
#[derive(Debug)]
enum TcHeld {
    Link(#[expect(dead_code, reason = "held for its drop")] FdLink),
    Filter(#[expect(dead_code, reason = "held for its drop")] SchedClassifierLink),
}

impl TcHeld {
    fn hold(&self) -> TcHold {
        match self {
            Self::Link(_) => TcHold::Link,
            Self::Filter(_) => TcHold::Filter,
        }
    }
}

fn hold_tc(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> Result<TcHeld, ProgramError> {
    // First of all programs: XDP too stands before every filter of the host's.
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(interface, direction, tcx) {
        Ok(id) => match program.take_link(id)?.try_into() {
            Ok(link) => Ok(TcHeld::Link(link)),
            Err(_) => Err(ProgramError::NotAttached),
        },
        // No such attach type: before Linux 6.6.
        Err(error) if program_code(&error) == Some(libc::EINVAL) => {
            hold_filter(program, interface, direction)
        }
        Err(error) => Err(error),
    }
}

fn hold_filter(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> Result<TcHeld, ProgramError> {
    match tc::qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() != Some(libc::EEXIST) => {
            return Err(TcError::NetlinkError(error).into());
        }
        _ => {}
    }
    // Without a priority the kernel puts it before the filters there are.
    let filter = TcAttachOptions::Netlink(tc::NlOptions::default());
    let id = program.attach_with_options(interface, direction, filter)?;
    Ok(TcHeld::Filter(program.take_link(id)?))
}

fn tc_refusal(interface: &str, error: &ProgramError) -> AttachError {
    let interface = interface.to_owned();
    match program_code(error) {
        Some(libc::EPERM | libc::EACCES) => AttachError::Privilege { interface },
        Some(libc::ENODEV) => AttachError::NoInterface { interface },
        // "Specified qdisc kind is unknown", and the same of the filter.
        Some(libc::ENOENT) => AttachError::NoTc { interface },
        _ => AttachError::Refused { what: "a TC program", interface, cause: chain(error) },
    }
}
