//! Why a job has failed, in the file of which a kubelet keeps the first bytes when a container has ended.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use muster_core::status::{LastWords, Words, is_last_words};
use muster_protocol::event::Event;
use muster_protocol::limits::TERMINATION_MESSAGE_BYTES_MAX;

use crate::discover::Surroundings;

/// Where a kubelet looks unless a pod says something else.
const OF_KUBELET: &str = "/dev/termination-log";
/// Time for it to be written when the command ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The file, written by a thread of its own: a disk that does not take it holds nobody up.
#[derive(Debug)]
pub struct TerminationMessage {
    /// Unbounded by type, bounded by what happens: a few events for each rank and host.
    news: Option<Sender<Event>>,
    written: Receiver<()>,
    by_default: bool,
}

impl TerminationMessage {
    /// Into the file that the user names, else into the kubelet's, where nobody has said anything yet.
    pub fn new(named: Option<&str>, site: &Surroundings) -> Option<Self> {
        let of_kubelet = || Some(site.path(OF_KUBELET)).filter(|path| is_silent(path));
        let path = named.map(PathBuf::from).or_else(of_kubelet)?;
        let by_default = named.is_none();
        let (news, inbox) = mpsc::channel();
        let (done, written) = mpsc::channel();
        let write = move || {
            listen(&path, by_default, &inbox);
            drop(done);
        };
        // Who cannot start a thread has other things to tell.
        thread::Builder::new().name("last-words".to_owned()).spawn(write).ok()?;
        Some(Self { news: Some(news), written, by_default })
    }

    /// The command has said itself why it has failed. A kubelet may show its last lines in place of an empty file; so ours stays empty,
    /// unless the user has named one.
    pub fn leave_the_last_lines(&mut self) {
        if self.by_default {
            self.event(&Event::JobEnded { status: 0, cause: None });
            self.news = None;
        }
    }

    /// Something happened.
    pub fn event(&self, event: &Event) {
        if let Some(news) = &self.news {
            let _ = news.send(event.clone());
        }
    }
}

impl Drop for TerminationMessage {
    fn drop(&mut self) {
        self.news = None;
        let _ = self.written.recv_timeout(LAST_LINES);
    }
}

/// Whether it is there, and empty or with what an earlier job has left. Anything else has been written by somebody who knows more of
/// his program than we do.
fn is_silent(path: &Path) -> bool {
    let Ok(file) = path.metadata() else { return false };
    let ours = || std::fs::read_to_string(path).is_ok_and(|text| is_last_words(&text));
    file.is_file() && (file.len() == 0 || file.len() <= TERMINATION_MESSAGE_BYTES_MAX as u64 && ours())
}

fn listen(path: &Path, by_default: bool, inbox: &Receiver<Event>) {
    let mut words = LastWords::default();
    for event in inbox {
        let text = match words.note(&event) {
            Some(Words::Failed(text)) => text,
            // Of an earlier job.
            Some(Words::Fine) if path.metadata().is_ok_and(|file| file.len() > 0) => String::new(),
            _ => continue,
        };
        // The program may have spoken meanwhile.
        if by_default && !is_silent(path) {
            return;
        }
        if let Err(error) = std::fs::write(path, text) {
            tracing::warn!(%error, file = %path.display(), "the termination message is not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(named: Option<&Path>, root: &Path) {
        end_with(7, named, root);
    }

    fn end_with(status: u8, named: Option<&Path>, root: &Path) {
        let site = Surroundings::new([], root, 1);
        let Some(message) = TerminationMessage::new(named.and_then(Path::to_str), &site) else { return };
        let cause = (status != 0).then(|| "rank 1 on h1 exited with status 7".to_owned());
        message.event(&Event::JobEnded { status, cause });
    }

    #[test]
    fn what_an_earlier_job_of_the_container_has_left_is_replaced_and_a_good_end_removes_it() {
        let root = tempfile::tempdir().unwrap();
        let of_kubelet = root.path().join("dev/termination-log");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(&of_kubelet, "").unwrap();
        let says = || std::fs::read_to_string(&of_kubelet).unwrap();
        for status in [7, 9] {
            end_with(status, None, root.path());
            assert!(says().starts_with(&format!(r#"{{"status":{status},"#)), "{}", says());
        }
        end_with(0, None, root.path());
        assert_eq!(says(), "");
        std::fs::write(&of_kubelet, "loss is NaN").unwrap();
        end_with(0, None, root.path());
        assert_eq!(says(), "loss is NaN");
        // A command that has told why it failed leaves its own last lines to the kubelet.
        std::fs::write(&of_kubelet, "").unwrap();
        end_with(7, None, root.path());
        let mut message = TerminationMessage::new(None, &Surroundings::new([], root.path(), 1)).unwrap();
        message.leave_the_last_lines();
        message.event(&Event::JobEnded { status: 7, cause: None });
        drop(message);
        assert_eq!(says(), "");
        let named = root.path().join("message");
        end_with(0, Some(&named), root.path());
        assert!(!named.exists(), "a good end has nothing to say");
        std::fs::write(&named, "of an earlier run").unwrap();
        end_with(0, Some(&named), root.path());
        assert_eq!(std::fs::read_to_string(&named).unwrap(), "");
    }

    #[test]
    fn it_goes_where_the_user_says_else_into_the_kubelets_file_unless_somebody_has_spoken_there() {
        const MESSAGE: &str =
            r#"{"status":7,"cause":"rank 1 on h1 exited with status 7","hosts_lost":0,"lost_hosts":[],"restarts":0}"#;
        let root = tempfile::tempdir().unwrap();
        let of_kubelet = root.path().join("dev/termination-log");
        end(None, root.path());
        assert!(!of_kubelet.exists(), "without a kubelet nothing is written");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(&of_kubelet, "").unwrap();
        end(None, root.path());
        assert_eq!(std::fs::read_to_string(&of_kubelet).unwrap(), MESSAGE);
        std::fs::write(&of_kubelet, "loss is NaN").unwrap();
        end(None, root.path());
        assert_eq!(std::fs::read_to_string(&of_kubelet).unwrap(), "loss is NaN");
        let named = root.path().join("message");
        std::fs::write(&named, "of an earlier run").unwrap();
        end(Some(&named), root.path());
        assert_eq!(std::fs::read_to_string(&named).unwrap(), MESSAGE);
    }
}
