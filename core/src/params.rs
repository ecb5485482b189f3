//! Parameters of Open MPI and its runtime (MCA), as their files have them: a name, `=`, a value in each line.

use std::collections::BTreeMap;

/// What files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Takes in what a file says. Of several files the first that names a parameter counts, in a file the last line.
    pub fn add(&mut self, text: &str) {
        let mut own = BTreeMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            if let Some((name, value)) = line.split_once('=') {
                own.insert(name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
            }
        }
        for (name, value) in own {
            self.0.entry(name).or_insert(value);
        }
    }

    /// What the files say of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All parameters with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_people_write_them() {
        let mut params = Params::default();
        params.add("# btl = self\n\n  pml = ^ucx # as packaged\nbtl_tcp_if_include=\"eth0\"\nnonsense\n");
        assert_eq!(params.iter().collect::<Vec<_>>(), [("btl_tcp_if_include", "eth0"), ("pml", "^ucx")]);
    }

    #[test]
    fn the_first_file_counts_and_in_it_the_last_line() {
        let mut params = Params::default();
        params.add("btl = ^sm\nbtl = ^vader");
        params.add("btl = tcp\nmtl = psm2");
        assert_eq!(params.get("btl"), Some("^vader"));
        assert_eq!(params.get("mtl"), Some("psm2"));
    }
}
