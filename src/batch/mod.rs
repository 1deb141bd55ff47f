//! Batches in the format of OpenAI's Batch API: requests line by line, and responses line by line.
//!
//! - [`Requests`]: reads and checks the requests of a file.
//! - [`ResponseFile`]: the responses so far; a kill or power loss costs at most an incomplete last line.
//! - [`fingerprint`]: by which a response is known to be that of a request.
//!
//! `hornbook batch` and the server's `/v1/batches` compute what lies between.

pub mod fingerprint;
mod progress;
mod requests;
mod response_file;

pub use progress::{Damage, OutputLine, Progress};
pub use requests::{BatchRequest, ENDPOINTS, InvalidLine, Requests};
pub use response_file::{BatchResponse, ResponseFile, refusal_line, response_line};
