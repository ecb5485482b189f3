//! Kubeflow Trainer's status server: where it is and what it takes to be heard, from the variables that it sets.

use std::path::PathBuf;

use super::Surroundings;

const URL: &str = "KUBEFLOW_TRAINER_SERVER_URL";
const AUTHORITY: &str = "KUBEFLOW_TRAINER_SERVER_CA_CERT";
const TOKEN: &str = "KUBEFLOW_TRAINER_SERVER_TOKEN";

/// Where a TrainJob's status is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusServer {
    /// Where it is sent to.
    pub url: String,
    /// File with the certificate authority.
    pub authority: PathBuf,
    /// File with the token, which others replace from time to time.
    pub token: PathBuf,
}

/// The status server, if this is a TrainJob whose status is kept; `Err` names the variables that are missing.
pub fn find_status_server(site: &Surroundings) -> Result<Option<StatusServer>, String> {
    let set = |name| site.var(name).filter(|value| !value.is_empty());
    let Some(url) = set(URL) else { return Ok(None) };
    match (set(AUTHORITY), set(TOKEN)) {
        (Some(authority), Some(token)) => {
            Ok(Some(StatusServer { url: url.to_owned(), authority: site.path(authority), token: site.path(token) }))
        }
        (authority, token) => {
            let missing: Vec<&str> =
                [(AUTHORITY, authority), (TOKEN, token)].iter().filter(|(_, v)| v.is_none()).map(|(n, _)| *n).collect();
            Err(format!("{URL} is set, but not {}", missing.join(" and ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn c7_the_server_is_known_by_three_variables() {
        let found = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            find_status_server(&Surroundings::new(variables, Path::new("/root-of-test"), 1))
        };
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[(URL, ""), (TOKEN, "/t")]), Ok(None));
        let whole = found(&[(URL, "https://t/status"), (AUTHORITY, "/var/ca.crt"), (TOKEN, "/var/token")]);
        let want = StatusServer {
            url: "https://t/status".to_owned(),
            authority: "/root-of-test/var/ca.crt".into(),
            token: "/root-of-test/var/token".into(),
        };
        assert_eq!(whole, Ok(Some(want)));
        let part = found(&[(URL, "https://t/status"), (TOKEN, "")]).unwrap_err();
        assert_eq!(
            part,
            "KUBEFLOW_TRAINER_SERVER_URL is set, but not KUBEFLOW_TRAINER_SERVER_CA_CERT and KUBEFLOW_TRAINER_SERVER_TOKEN"
        );
    }
}
