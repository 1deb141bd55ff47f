//! From a text to the next token in ten pages, for someone who knows what a matrix is and has never met a language model.
//!
//! Each page explains one idea, shows its formula, links the function that does nothing but that formula (the
//! *textbook*), and ends with a few lines that run on the built-in model and check what the page says. The lines are
//! tests: what they claim is so.
//!
//! | page                | the question                                                             |
//! | ------------------- | ------------------------------------------------------------------------ |
//! | 1. [`tokens`]       | How does text become numbers?                                            |
//! | 2. [`embedding`]    | What does the model know a token as?                                     |
//! | 3. [`positions`]    | How does it know which token comes first?                                |
//! | 4. [`attention`]    | How do tokens learn of each other?                                       |
//! | 5. [`mlp`]          | And what is done with what they learned?                                 |
//! | 6. [`norm`]         | What keeps the numbers in bounds on the way?                             |
//! | 7. [`head`]         | How do numbers become a prediction?                                      |
//! | 8. [`sampling`]     | How does a prediction become a token, and tokens a text?                 |
//! | 9. [`cache`]        | Why does the tenth token not cost ten times the first?                   |
//! | 10. [`kernels`]     | And how is all of it made fast without changing a bit?                   |
//!
//! The whole way once, which the pages then take step by step. A GPT-2 has one task: given the tokens so far, say how
//! likely each token of its vocabulary is to come next.
//!
//! ```text
//! text ─▶ tokens ─▶ one row of numbers each, plus its position
//!          ─▶ block 0 ─▶ block 1 ─▶ …       each adds something to every row:
//!                                           attention, what it found in other tokens' rows
//!                                           MLP, what follows from the row itself
//!          ─▶ layer norm ─▶ head ─▶ a score for every token ─▶ the next token ─▶ text
//! ```
//!
//! `hornbook explain "Once upon a time"` takes the same way in a terminal, with the real numbers of each step.
//! [`model`](crate::model) is the code of it.

pub mod attention;
pub mod cache;
pub mod embedding;
pub mod head;
pub mod kernels;
pub mod mlp;
pub mod norm;
pub mod positions;
pub mod sampling;
pub mod tokens;
