//! What the API server's refusals mean, for those who can do something about them.

use serde::Deserialize;

/// Characters of the server's own words that are passed on.
const WORDS_CHARS: usize = 200;

/// A question to the API server.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The object, by kind, name and namespace.
    pub object: &'a str,
    /// The right that it takes.
    pub right: &'a str,
    /// File with the token that it was asked with.
    pub token: &'a str,
}

/// The object with which the server explains itself.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

impl Question<'_> {
    /// Why there was no answer, from the reply's status and body.
    pub fn refused(&self, status: u16, body: &[u8]) -> String {
        let Self { object, right, token } = self;
        let what = match status {
            401 => format!("the token in {token} is not accepted; is it this cluster's, and is it renewed?"),
            403 => format!("the pod's service account needs the right to {right}"),
            404 => format!("there is no {object}"),
            _ => "the server does not do it now".to_owned(),
        };
        match words(body) {
            Some(words) => format!("status {status}; {what}; the server says: {words}"),
            None => format!("status {status}; {what}"),
        }
    }
}

/// The server's own words, on one line and within bounds.
fn words(body: &[u8]) -> Option<String> {
    let Status { message } = serde_json::from_slice(body).ok()?;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut words: String = message.trim().chars().map(clean).take(WORDS_CHARS).collect();
    if message.trim().chars().count() > WORDS_CHARS {
        words.pop();
        words.push('…');
    }
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Question<'_> = Question {
        object: "JobSet big-run in namespace team-a",
        right: "get on jobsets",
        token: "/var/run/secrets/token",
    };

    #[test]
    fn c8_each_refusal_says_what_to_do_and_what_the_server_has_said() {
        let body = |message: &str| serde_json::json!({ "kind": "Status", "message": message }).to_string();
        let forbidden = body("jobsets is forbidden:\nno RBAC policy matched");
        for (status, said, want) in [
            (
                401,
                "",
                "status 401; the token in /var/run/secrets/token is not accepted; is it this cluster's, and is it renewed?",
            ),
            (
                401,
                &body("Unauthorized"),
                "status 401; the token in /var/run/secrets/token is not accepted; is it this cluster's, and is it renewed?; \
                 the server says: Unauthorized",
            ),
            (
                403,
                &forbidden,
                "status 403; the pod's service account needs the right to get on jobsets; \
                 the server says: jobsets is forbidden: no RBAC policy matched",
            ),
            (404, "<html>", "status 404; there is no JobSet big-run in namespace team-a"),
            (503, &body(" "), "status 503; the server does not do it now"),
            (500, r#"{"message":7}"#, "status 500; the server does not do it now"),
        ] {
            assert_eq!(LOOK.refused(status, said.as_bytes()), want);
        }
    }

    #[test]
    fn c8_long_words_of_the_server_are_cut_to_whole_characters() {
        for (length, cut) in [(200, false), (201, true), (100_000, true)] {
            let body = serde_json::json!({ "message": "ü".repeat(length) }).to_string();
            let said = LOOK.refused(500, body.as_bytes());
            let words = said.split("says: ").nth(1).unwrap();
            assert_eq!((words.chars().count(), words.ends_with('…')), (200, cut), "{length}");
        }
    }
}
