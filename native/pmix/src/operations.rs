//! What the library waits for: tokens on the way to the agent, and whom to call when the answer comes.

use std::collections::HashMap;

use muster_protocol::limits::PMIX_WAITING_OPERATIONS_MAX;

/// Operations that wait for the agent.
#[derive(Debug)]
pub struct Operations<T> {
    next: u64,
    waiting: HashMap<u64, T>,
}

impl<T> Operations<T> {
    /// None yet.
    pub fn new() -> Self {
        Self { next: 1, waiting: HashMap::new() }
    }

    /// Keeps one and gives it a number.
    ///
    /// # Errors
    /// When too many wait already; it comes back.
    pub fn keep(&mut self, operation: T) -> Result<u64, T> {
        if self.waiting.len() >= PMIX_WAITING_OPERATIONS_MAX {
            return Err(operation);
        }
        let token = self.next;
        self.next += 1;
        self.waiting.insert(token, operation);
        Ok(token)
    }

    /// The one with this number. Each is handed out once.
    pub fn take(&mut self, token: u64) -> Option<T> {
        self.waiting.remove(&token)
    }
}

impl<T> Default for Operations<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_handed_out_once_under_a_number_of_its_own() {
        let mut operations = Operations::new();
        let (a, b) = (operations.keep("a").unwrap(), operations.keep("b").unwrap());
        assert_ne!(a, b);
        assert_eq!([operations.take(b), operations.take(b), operations.take(a)], [Some("b"), None, Some("a")]);
        assert_eq!(operations.take(a + b), None);
    }

    #[test]
    fn more_than_the_limit_come_back() {
        let mut operations = Operations::new();
        for number in 0..PMIX_WAITING_OPERATIONS_MAX {
            operations.keep(number).expect("below the limit");
        }
        assert_eq!(operations.keep(7), Err(7));
        assert!(operations.take(1).is_some());
        assert!(operations.keep(7).is_ok());
    }
}
