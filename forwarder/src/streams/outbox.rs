//! What waits to be sent over one connection.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

use super::unframe::framed;

/// Places kept for control packets when data packets have taken theirs: they are few, and end what is wrong.
const FOR_CONTROL: usize = 16;
/// Packets given to the kernel at once.
const AT_ONCE: usize = 64;

/// Which share of the places a packet may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Control,
}

/// Framed packets, the first of them possibly sent in part.
///
/// Invariant: `packets.len() <= limit + FOR_CONTROL`, and `sent` is less than the first one's length.
#[derive(Debug)]
pub(super) struct Outbox {
    packets: VecDeque<Vec<u8>>,
    sent: usize,
    limit: usize,
}

impl Outbox {
    /// With places for `limit` data packets.
    pub fn new(limit: usize) -> Self {
        Self { packets: VecDeque::new(), sent: 0, limit: limit.max(1) }
    }

    /// True if there is no place for one more.
    pub fn is_full(&self, kind: Kind) -> bool {
        self.packets.len() >= self.limit + if kind == Kind::Control { FOR_CONTROL } else { 0 }
    }

    /// Puts a packet behind the others; false if there is no place for it.
    #[must_use]
    pub fn push(&mut self, kind: Kind, packet: &[u8]) -> bool {
        let framed = framed(packet).filter(|_| !self.is_full(kind));
        framed.map(|framed| self.packets.push_back(framed)).is_some()
    }

    /// Writes as much as `stream` takes.
    ///
    /// # Errors
    /// What the stream says, other than that it takes no more for now.
    pub fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while !self.packets.is_empty() {
            let mut slices = [IoSlice::new(&[]); AT_ONCE];
            let mut from = self.sent;
            let count = self.packets.len().min(AT_ONCE);
            for (slice, packet) in slices.iter_mut().zip(&self.packets) {
                *slice = IoSlice::new(&packet[std::mem::take(&mut from)..]);
            }
            match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// `count` more bytes are sent.
    fn advance(&mut self, count: usize) {
        self.sent += count;
        while let Some(first) = self.packets.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            self.packets.pop_front();
        }
        debug_assert!(self.packets.front().is_none_or(|first| self.sent < first.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and now and then none.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_sent_in_part_goes_on_where_it_stopped() {
        for step in 1..30 {
            let mut outbox = Outbox::new(100);
            let packets: Vec<Vec<u8>> = (1..40_u8).map(|len| vec![len; len.into()]).collect();
            assert!(packets.iter().all(|packet| outbox.push(Kind::Data, packet)));
            let mut stream = Narrow { taken: Vec::new(), room: 0 };
            while !outbox.packets.is_empty() {
                stream.room = step;
                outbox.flush(&mut stream).unwrap();
            }
            let all: Vec<u8> = packets.iter().flat_map(|packet| framed(packet).unwrap()).collect();
            assert_eq!(stream.taken, all, "{step} bytes at a time");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_control_packets_have_places_of_their_own() {
        let mut outbox = Outbox::new(64);
        let taken = (0..100).filter(|_| outbox.push(Kind::Data, b"data")).count();
        let more = (0..100).filter(|_| outbox.push(Kind::Control, b"control")).count();
        assert_eq!((taken, more), (64, FOR_CONTROL));
        assert!(!outbox.push(Kind::Data, b"data"));
        outbox.flush(&mut Narrow { taken: Vec::new(), room: usize::MAX }).unwrap();
        assert!(outbox.packets.is_empty() && outbox.push(Kind::Data, b"data"));
        assert!(!outbox.push(Kind::Data, &[]) && !outbox.push(Kind::Data, &[0; 65_536]));
    }

    #[test]
    fn a_stream_that_breaks_says_so() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut outbox = Outbox::new(1);
        assert!(outbox.push(Kind::Data, b"x"));
        assert_eq!(outbox.flush(&mut Broken).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
