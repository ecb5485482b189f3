//! `--join`: an agent that nobody can dial dials its launcher, and is served as if it had been dialled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_protocol::hello::{Hello, Lane, RELEASE, Role, VERSION_MAX, VERSION_MIN};
use muster_protocol::limits::{HANDSHAKE_TIMEOUT_MS, JOIN_QUEUE_WISHES_MAX};
use muster_protocol::{Epoch, Generation, HostIndex};
use muster_transport::dial::Dialer;
use muster_transport::gate::Guest;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Time for one attempt.
const LIMIT: Duration = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
/// First pause after an attempt that failed; it doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: a launcher that comes up is joined within this time.
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// What is to be dialled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The first connection of a job.
    Control,
    /// The same, after a pause: the launcher has welcomed this agent and then had nothing to do for it.
    ControlLater,
    /// The bulk connection of the job that runs.
    Bulk,
}

impl Wish {
    fn lane(self) -> Lane {
        match self {
            Self::Control | Self::ControlLater => Lane::Control,
            Self::Bulk => Lane::Bulk,
        }
    }
}

/// Pauses that grow up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause(Duration);

impl Pause {
    const FIRST: Self = Self(PAUSE_FIRST);

    /// The pause that is due now; the next one is longer.
    fn take(&mut self) -> Duration {
        let due = self.0;
        self.0 = (due * 2).min(PAUSE_LAST);
        due
    }

    /// The time to wait before a wish is granted: only launchers that never have anything to do are let alone for long.
    fn before(&mut self, wish: Wish) -> Duration {
        match wish {
            Wish::ControlLater => self.take(),
            Wish::Control => {
                *self = Self::FIRST;
                Duration::ZERO
            }
            Wish::Bulk => Duration::ZERO,
        }
    }
}

/// Which launcher is joined, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The launcher's host.
    pub host: String,
    /// The port it listens on.
    pub port: u16,
    /// This host's name in the launcher's list.
    pub name: String,
    /// The job.
    pub job: String,
    /// This process.
    pub incarnation: u64,
}

/// Brings guests by dialling for them.
pub struct JoinDoor {
    target: Target,
    guests: mpsc::Receiver<Guest>,
    wishes: mpsc::Sender<Wish>,
    /// A bulk connection is wished for already.
    bulk_wished: Arc<AtomicBool>,
}

impl JoinDoor {
    /// Gets ready to dial for a launcher; nobody is dialled before the first wish.
    pub fn start(dialer: Dialer, target: Target) -> Self {
        let (wishes, mut wished) = mpsc::channel(JOIN_QUEUE_WISHES_MAX);
        let (found, guests) = mpsc::channel(1);
        let bulk_wished = Arc::new(AtomicBool::new(false));
        let door = Self { target: target.clone(), guests, wishes, bulk_wished: bulk_wished.clone() };
        tokio::spawn(async move {
            let mut told = String::new();
            let mut rest = Pause::FIRST;
            while let Some(wish) = wished.recv().await {
                let lane = wish.lane();
                sleep(rest.before(wish)).await;
                let dialled = dial_as_wished(&dialer, &target, lane, &mut told).await;
                if lane == Lane::Bulk {
                    bulk_wished.store(false, Ordering::Relaxed);
                }
                if let Some(guest) = dialled
                    && found.send(guest).await.is_err()
                {
                    return;
                }
            }
        });
        door
    }

    /// Where it dials, for people.
    pub fn describe(&self) -> String {
        format!("joins {}:{} as {}", self.target.host, self.target.port, self.target.name)
    }

    /// Asks for a connection to the launcher: the bulk one of a job that runs, or the first one of the next job.
    pub fn wish(&self, wish: Wish) {
        if wish == Wish::Bulk && self.bulk_wished.swap(true, Ordering::Relaxed) {
            return;
        }
        // A full queue holds this wish already.
        let _ = self.wishes.try_send(wish);
    }

    /// The next guest; never when dialling has ended.
    pub async fn next(&mut self) -> Guest {
        match self.guests.recv().await {
            Some(guest) => guest,
            None => std::future::pending().await,
        }
    }
}

/// Dials until the launcher serves, or, for the bulk lane of a job that may have ended meanwhile, for a while: a job that goes
/// on asks again.
async fn dial_as_wished(dialer: &Dialer, target: &Target, lane: Lane, told: &mut String) -> Option<Guest> {
    let mut pause = Pause::FIRST;
    loop {
        match attempt(dialer, target, lane).await {
            Ok(guest) => return Some(guest),
            Err(why) if why != *told => {
                tracing::warn!(why, "the launcher is not joined yet");
                *told = why;
            }
            Err(_) => {}
        }
        let pause = pause.take();
        if lane == Lane::Bulk && pause >= PAUSE_LAST {
            return None;
        }
        sleep(pause).await;
    }
}

async fn attempt(dialer: &Dialer, target: &Target, lane: Lane) -> Result<Guest, String> {
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        release: RELEASE.to_owned(),
        role: Role::Joiner,
        lane,
        job: target.job.clone(),
        epoch: Epoch(0),
        from: muster_sys::proc::hostname(),
        incarnation: target.incarnation,
        you: HostIndex(0),
        your_name: target.name.clone(),
        generation: Generation(0),
    };
    let dialed = dialer.dial(&target.host, target.port, &hello, LIMIT).await.map_err(|e| e.to_string())?;
    match timeout(LIMIT, dialed.turn()).await {
        Ok(turned) => turned.map_err(|e| e.to_string()),
        Err(_) => Err("the launcher has welcomed us and then said nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_that_has_nothing_to_do_for_this_agent_is_joined_again_with_growing_pauses() {
        let mut rest = Pause::FIRST;
        let later: Vec<Duration> = (0..7).map(|_| rest.before(Wish::ControlLater)).collect();
        assert_eq!(later, [100, 200, 400, 800, 1_600, 2_000, 2_000].map(Duration::from_millis));
        assert_eq!(rest.before(Wish::Bulk), Duration::ZERO);
        assert_eq!(rest.before(Wish::Control), Duration::ZERO, "the next job of one that had");
        assert_eq!(rest.before(Wish::ControlLater), PAUSE_FIRST);
    }
}
