//! Shards of a batch, each for one of several machines.

use crate::batch::BatchRequest;
use std::fmt;
use std::str::FromStr;

/// Which requests a machine computes: the first of every `count`, the second, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    index: usize,
    count: usize,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Parses `I/N`.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err("expected I/N with I from 1 to N, e.g. 2/8".into()),
        }
    }
}

impl Shard {
    /// Keeps the requests of this shard, which may be none.
    pub fn retain(self, requests: &mut Vec<BatchRequest>) {
        let mut i = 0;
        requests.retain(|_| {
            i += 1;
            (i - 1) % self.count == self.index - 1
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_in_one_shard() {
        let request = |line| BatchRequest { line, custom_id: "".into(), endpoint: "", body: "".into() };
        let all: Vec<BatchRequest> = (1..=10).map(request).collect();
        let lines = |shard: &str| -> Vec<usize> {
            let mut requests = all.clone();
            shard.parse::<Shard>().unwrap().retain(&mut requests);
            requests.iter().map(|request| request.line).collect()
        };
        assert_eq!(
            [lines("1/3"), lines("2/3"), lines("3/3")],
            [vec![1, 4, 7, 10], vec![2, 5, 8], vec![3, 6, 9]]
        );
        assert_eq!((lines("1/1").len(), lines("11/11").len()), (10, 0));
        for invalid in ["", "1", "0/3", "4/3", "1/0", "a/3", "1/3/5", "-1/3"] {
            assert!(invalid.parse::<Shard>().is_err(), "{invalid}");
        }
    }
}
