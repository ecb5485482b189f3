//! Which agent has joined as which host: a name belongs to one of them at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use muster_protocol::hello::Refusal;

/// The agent that has a name, for as long as its connection lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// One incarnation of its process.
    pub(super) incarnation: u64,
    /// Where it runs, for people.
    pub(super) place: String,
}

/// The names that are taken. A seat is free again when nobody keeps what [`Seats::take`] gave.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: HashMap<String, Weak<Holder>>,
}

impl Seats {
    /// Gives a name to an agent, unless one has it.
    pub(super) fn take(&mut self, name: &str, who: Holder) -> Result<Arc<Holder>, Refusal> {
        if let Some(holder) = self.holder(name) {
            return Err(Refusal::NameTaken { name: name.to_owned(), holder: holder.place.clone(), you: who.place });
        }
        let seat = Arc::new(who);
        self.taken.insert(name.to_owned(), Arc::downgrade(&seat));
        Ok(seat)
    }

    /// The seat of an agent that brings another connection.
    pub(super) fn of(&self, name: &str, who: &Holder) -> Result<Arc<Holder>, Refusal> {
        self.holder(name).filter(|holder| holder.incarnation == who.incarnation).ok_or(Refusal::NoEdge)
    }

    fn holder(&self, name: &str) -> Option<Arc<Holder>> {
        self.taken.get(name)?.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(incarnation: u64) -> Holder {
        Holder { incarnation, place: format!("w-{incarnation} (10.0.0.{incarnation})") }
    }

    #[test]
    fn a_second_agent_of_one_name_is_refused_while_the_first_is_connected_and_hears_of_both() {
        let mut seats = Seats::default();
        let seat = seats.take("a", agent(1)).unwrap();
        let refusal = seats.take("a", agent(2)).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "host \"a\" has been joined already by the agent on w-1 (10.0.0.1); \
             the agent on w-2 (10.0.0.2) needs a --name of its own"
        );
        let _other = seats.take("b", agent(2)).unwrap();
        drop(seat);
        assert_eq!(seats.take("a", agent(2)).unwrap().incarnation, 2);
    }

    #[test]
    fn only_who_has_the_name_brings_a_second_connection() {
        let mut seats = Seats::default();
        assert_eq!(seats.of("a", &agent(1)), Err(Refusal::NoEdge));
        let seat = seats.take("a", agent(1)).unwrap();
        assert_eq!(seats.of("a", &agent(1)).as_deref(), Ok(&*seat));
        assert_eq!(seats.of("a", &agent(2)), Err(Refusal::NoEdge));
    }
}
