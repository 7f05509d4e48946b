//! Names to addresses, on a thread of its own: the system's resolver may take half a minute, and the loop cannot wait.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    thread,
};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::config::client::Remote;

/// What wakes the control thread.
pub(in crate::control) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Asks the system's resolver, one question at a time.
pub(super) struct Resolver {
    wake: Wake,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Number of the last question.
    asked: u64,
}

/// What a question came to.
struct Answer {
    question: u64,
    addresses: io::Result<Vec<SocketAddr>>,
}

impl Resolver {
    pub(super) fn new(wake: Wake) -> Self {
        // No question is asked while another is open.
        Self { wake, answers: bounded(1), asked: 0 }
    }

    /// Asks for the addresses of `remote`; [`Self::take`] has them later. Addresses need no asking.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn ask(&mut self, remote: &Remote) -> io::Result<()> {
        self.asked += 1;
        let (question, sender) = (self.asked, self.answers.0.clone());
        if let Ok(address) = remote.host.parse::<IpAddr>() {
            let addresses = Ok(vec![SocketAddr::new(address, remote.port)]);
            return sender.try_send(Answer { question, addresses }).map_err(io::Error::other);
        }
        let (host, port, wake) = (remote.host.clone(), remote.port, Arc::clone(&self.wake));
        // Not joined: it ends by itself, and the gateway's end does not wait for it.
        let thread = thread::Builder::new().name("resolver".into()).spawn(move || {
            let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Refused only where nobody waits any more.
            let _ = sender.try_send(Answer { question, addresses });
            wake();
        });
        thread.map(drop)
    }

    /// The answer to the last question, once it is there.
    pub(super) fn take(&mut self) -> Option<io::Result<Vec<SocketAddr>>> {
        self.answers.1.try_iter().find(|answer| answer.question == self.asked).map(|answer| answer.addresses)
    }
}
