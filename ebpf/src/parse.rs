//! What a frame is: malformed, not ours, or ours. Nothing here acts on it.

mod ipv6;

pub use ipv6::{FragmentV6, IPV6, Ipv6, UdpV6};

use common::{FdbKey, ListenerKey, Mac};

use crate::frame::Frame;

/// The frame ends early or contradicts itself: the kernel may make of it what it likes.
pub struct Malformed;

const ETHERNET: usize = 14;
const TAG: usize = 4;
const UDP: usize = 8;

/// Type of an IPv4 packet.
pub const IPV4: u16 = 0x0800;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

const VLAN_ID: u16 = 0x0fff;
const PROTOCOL_UDP: u8 = 17;
/// More fragments, or an offset: either way the whole datagram is not here.
const FRAGMENT: u16 = 0x3fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const FRAGMENT_UNIT: usize = 8;

//= openvpn-wire-protocol "Packet format": the opcode is the upper five bits of the first byte.
const OPCODE_SHIFT: u8 = 3;
const P_DATA_V1: u8 = 6;
const P_DATA_V2: u8 = 9;

/// The Ethernet header with its outer tag.
pub struct Ethernet {
    /// Where it goes.
    pub destination: Mac,
    /// Where it comes from.
    pub source: Mac,
    /// VLAN of the outer tag; 0 without one, and for VLAN id 0, which carries a priority only.
    pub vlan: u16,
    /// What comes after the header; 0 behind a tag, where nothing of ours is looked for.
    pub untagged_type: u16,
    /// 802.1Q or 802.1ad: what the tag is said to be; else as `untagged_type`.
    outer_type: u16,
}

impl Ethernet {
    /// Reads the header.
    #[inline(always)]
    pub fn parse(frame: &impl Frame) -> Result<Self, Malformed> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] =
            frame.read::<ETHERNET>(0).ok_or(Malformed)?;
        let ethertype = u16::from_be_bytes([t0, t1]);
        let tag = match frame.stripped_tag() {
            Some(tag) => Some(tag),
            None if matches!(ethertype, CUSTOMER_TAG | SERVICE_TAG) => Some(inline_tag(frame)?),
            None => None,
        };
        Ok(Self {
            destination: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            vlan: tag.unwrap_or(0) & VLAN_ID,
            untagged_type: if tag.is_some() { 0 } else { ethertype },
            outer_type: ethertype,
        })
    }

    /// With a tag of either kind in the frame.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        matches!(self.outer_type, CUSTOMER_TAG | SERVICE_TAG)
    }

    /// VLAN of the outer tag in the frame, `Some(0)` where it is no customer's; `None` without a tag.
    #[inline(always)]
    pub fn customer_tag(&self) -> Option<u16> {
        match self.outer_type {
            CUSTOMER_TAG => Some(self.vlan),
            SERVICE_TAG => Some(0),
            _ => None,
        }
    }

    /// Key of the destination in the forwarding database.
    #[inline(always)]
    pub fn destination_key(&self) -> FdbKey {
        FdbKey::new(self.vlan, self.destination)
    }

    /// Key of the source in the forwarding database.
    #[inline(always)]
    pub fn source_key(&self) -> FdbKey {
        FdbKey::new(self.vlan, self.source)
    }

    /// A source that can be a station: not a group, not zero.
    #[inline(always)]
    pub fn has_valid_source(&self) -> bool {
        !is_group(self.source) && self.source != [0; 6]
    }
}

/// Broadcast and multicast.
#[inline(always)]
pub fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

#[inline(always)]
fn inline_tag(frame: &impl Frame) -> Result<u16, Malformed> {
    let [control0, control1, _, _] = frame.read::<TAG>(ETHERNET).ok_or(Malformed)?;
    Ok(u16::from_be_bytes([control0, control1]))
}

/// The IPv4 header of a UDP packet, or of a fragment of one, in an untagged frame.
pub struct Ipv4 {
    header: [u8; 20],
    /// With options.
    header_len: usize,
}

impl Ipv4 {
    /// `Ok(None)`: something else.
    #[inline(always)]
    pub fn parse(frame: &impl Frame, ethernet: &Ethernet) -> Result<Option<Self>, Malformed> {
        if ethernet.untagged_type != IPV4 {
            return Ok(None);
        }
        let header = frame.read::<20>(ETHERNET).ok_or(Malformed)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_len < 20 {
            return Err(Malformed);
        }
        Ok((header[9] == PROTOCOL_UDP).then_some(Self { header, header_len }))
    }

    /// The datagram is not all here.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment_field() & FRAGMENT != 0
    }

    #[inline(always)]
    fn fragment_field(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// Bytes behind the header, all of them in the frame.
    #[inline(always)]
    fn payload_len(&self, frame: &impl Frame) -> Result<usize, Malformed> {
        let total = usize::from(u16::from_be_bytes([self.header[2], self.header[3]]));
        if (frame.length() as usize) < ETHERNET + total {
            return Err(Malformed);
        }
        total.checked_sub(self.header_len).ok_or(Malformed)
    }

    #[inline(always)]
    fn source(&self) -> [u8; 4] {
        [self.header[12], self.header[13], self.header[14], self.header[15]]
    }

    #[inline(always)]
    fn destination(&self) -> [u8; 4] {
        [self.header[16], self.header[17], self.header[18], self.header[19]]
    }
}

/// A whole UDP datagram over IPv4 in an untagged frame.
pub struct Udp {
    /// Address and port it comes from.
    pub source: ListenerKey,
    /// Address and port it goes to.
    pub destination: ListenerKey,
    header_len: usize,
    has_payload: bool,
}

impl Udp {
    /// `Ok(None)`: something else, or a fragment.
    #[inline(always)]
    pub fn parse(frame: &impl Frame, ethernet: &Ethernet) -> Result<Option<Self>, Malformed> {
        match Ipv4::parse(frame, ethernet)? {
            Some(ip) if !ip.is_fragment() => Self::behind(frame, &ip).map(Some),
            _ => Ok(None),
        }
    }

    /// The datagram behind `ip`, which is no fragment.
    #[inline(always)]
    pub fn behind(frame: &impl Frame, ip: &Ipv4) -> Result<Self, Malformed> {
        let udp = behind_ip::<UDP>(frame, ip.header_len)?;
        let udp_len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        if udp_len < UDP || ip.payload_len(frame)? < udp_len {
            return Err(Malformed);
        }
        Ok(Self {
            source: listener(ip.source(), [udp[0], udp[1]]),
            destination: listener(ip.destination(), [udp[2], udp[3]]),
            header_len: ip.header_len,
            has_payload: udp_len > UDP,
        })
    }

    /// Whether the payload is an OpenVPN data packet, by its opcode.
    #[inline(always)]
    pub fn is_data(&self, frame: &impl Frame) -> Result<bool, Malformed> {
        if !self.has_payload {
            return Ok(false);
        }
        let [.., first] = behind_ip::<{ UDP + 1 }>(frame, self.header_len)?;
        Ok(is_data(first))
    }
}

/// What the fragments of one datagram have in common, as far as marks tell datagrams apart.
pub struct Datagram {
    /// IPv4: the address it comes from. IPv6: a fold of that and of a part of its identification.
    pub source: u32,
    /// IPv4: the address it goes to. IPv6: a fold of that.
    pub destination: u32,
    /// IPv4: its identification. IPv6: the other part of that.
    pub identification: u16,
}

/// A fragment of a UDP datagram over IPv4 in an untagged frame.
pub struct Fragment {
    /// Which datagram it is of.
    pub datagram: Datagram,
    /// The datagram begins here: this fragment has the UDP header.
    pub is_first: bool,
    destination: [u8; 4],
    header_len: usize,
    payload_len: usize,
}

impl Fragment {
    /// What comes behind `ip`, which is a fragment.
    #[inline(always)]
    pub fn behind(frame: &impl Frame, ip: &Ipv4) -> Result<Self, Malformed> {
        let field = ip.fragment_field();
        let payload_len = ip.payload_len(frame)?;
        //= rfc791 section 3.1: fragments are counted in units of 8 octets; only the last may end between.
        if payload_len == 0 || (field & MORE_FRAGMENTS != 0 && payload_len % FRAGMENT_UNIT != 0) {
            return Err(Malformed);
        }
        Ok(Self {
            datagram: Datagram {
                source: u32::from_be_bytes(ip.source()),
                destination: u32::from_be_bytes(ip.destination()),
                identification: u16::from_be_bytes([ip.header[4], ip.header[5]]),
            },
            is_first: field & OFFSET == 0,
            destination: ip.destination(),
            header_len: ip.header_len,
            payload_len,
        })
    }

    /// Where the datagram goes and whether it is an OpenVPN data packet, by its opcode; of a first fragment.
    #[inline(always)]
    pub fn leads(&self, frame: &impl Frame) -> Result<(ListenerKey, bool), Malformed> {
        // Behind a shorter payload there may be padding, which is not to be read as one.
        if self.payload_len <= UDP {
            return Err(Malformed);
        }
        let [_, _, p, q, _, _, _, _, first] = behind_ip::<{ UDP + 1 }>(frame, self.header_len)?;
        Ok((listener(self.destination, [p, q]), is_data(first)))
    }
}

#[inline(always)]
fn is_data(first: u8) -> bool {
    matches!(first >> OPCODE_SHIFT, P_DATA_V1 | P_DATA_V2)
}

#[inline(always)]
fn behind_ip<const N: usize>(frame: &impl Frame, header_len: usize) -> Result<[u8; N], Malformed> {
    let bytes = match header_len {
        20 => frame.read(ETHERNET + 20),
        // Options: nobody's common case.
        _ => frame.read_far(ETHERNET + header_len),
    };
    bytes.ok_or(Malformed)
}

#[inline(always)]
fn listener(address: [u8; 4], port: [u8; 2]) -> ListenerKey {
    ListenerKey { address, port, reserved: [0; 2] }
}
