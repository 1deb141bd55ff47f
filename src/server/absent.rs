//! The parts of OpenAI's platform that are not here: one table, by which a 404 says what is missing, rather
//! than only that the URL is unknown.

/// The first segments of a path, and what is not there.
const TABLE: &[(&[&str], &str)] = &[
    (&["moderations"], "no moderation model: nothing here judges whether a text is safe"),
    (&["images"], "no image model"),
    (&["videos"], "no video model"),
    (&["audio"], "no audio model: it neither speaks nor transcribes"),
    (&["realtime"], "no realtime sessions; stream a completion instead"),
    (&["assistants"], "no assistants; send the conversation to /v1/chat/completions instead"),
    (&["threads"], "no threads: it keeps no conversations"),
    (&["conversations"], "no conversations: it keeps none; send the messages with each request"),
    (&["responses"], "no stored responses: each is sent once, by POST /v1/responses"),
    (&["vector_stores"], NO_SEARCH),
    (&["containers"], "no containers: it runs no code"),
    (&["uploads"], "no uploads in parts; POST the whole file to /v1/files"),
    (&["evals"], "no evals"),
    (&["organization"], "no organizations; hornbook keys manages the API keys"),
    (&["projects"], "no projects; hornbook keys manages the API keys"),
    (&["skills"], "no skills"),
    (&["chatkit"], "no ChatKit"),
    (&["edits"], NO_EDITS),
    (&["engines", "*", "edits"], NO_EDITS),
    (&["search"], NO_SEARCH),
    (&["engines", "*", "search"], NO_SEARCH),
    (&["answers"], "no answers, which OpenAI has retired; put documents and question in a prompt"),
    (&["classifications"], "no classifications, which OpenAI has retired; compare the logprobs of labels"),
];
const NO_SEARCH: &str = "no search; /v1/embeddings has the vectors to search by";
const NO_EDITS: &str = "no edits, which OpenAI has retired; put the instruction in a prompt";

/// Returns what is not there at a normalized path, if OpenAI has something there.
pub fn absent_part(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is_at = |prefix: &[&str]| {
        prefix.len() <= segments.len() && prefix.iter().zip(&segments).all(|(a, b)| *a == "*" || a == b)
    };
    TABLE.iter().find(|(prefix, _)| is_at(prefix)).map(|(_, sentence)| *sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_found_by_its_first_segments() {
        let image = Some("no image model");
        assert_eq!([absent_part("/images"), absent_part("/images/edits/x")], [image; 2]);
        assert!(absent_part("/engines/davinci/search").unwrap().starts_with("no search"));
        for path in ["/", "/imagesx", "/nothing", "/engines/davinci", "/engines/search/x"] {
            assert_eq!(absent_part(path), None, "{path}");
        }
    }

    #[test]
    fn table_has_each_path_once() {
        for (i, (prefix, sentence)) in TABLE.iter().enumerate() {
            assert!(TABLE[..i].iter().all(|(other, _)| other != prefix), "{prefix:?}");
            assert!(sentence.starts_with("no ") && !sentence.ends_with('.'), "{sentence}");
        }
    }
}
