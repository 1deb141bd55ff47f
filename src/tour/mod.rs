//! From a text to the next token in ten pages, for readers who know what a matrix is and are new to language
//! models.
//!
//! Each page explains one idea and gives its formula. It links the *reference implementation*, a function
//! that computes just that formula, and ends with a short example that runs on the built-in model `fable`.
//! The examples are tests, so every claim in them is checked.
//!
//! | page                | the question                                                             |
//! | ------------------- | ------------------------------------------------------------------------ |
//! | 1. [`tokens`]       | How does text become integers?                                           |
//! | 2. [`embedding`]    | Which vector stands for a token?                                         |
//! | 3. [`positions`]    | How does the model know the order of the tokens?                         |
//! | 4. [`attention`]    | How do tokens exchange information?                                      |
//! | 5. [`mlp`]          | How is each token processed by itself?                                   |
//! | 6. [`layer_norm`]   | How do the values stay in a useful range?                                |
//! | 7. [`lm_head`]      | How does a row become a prediction?                                      |
//! | 8. [`sampling`]     | How does a prediction become a token, and tokens a text?                 |
//! | 9. [`cache`]        | Why is the tenth token not ten times as expensive as the first?          |
//! | 10. [`kernels`]     | How are the operations made fast without changing the result?            |
//!
//! First an overview; the pages then explain it step by step. GPT-2 is a *language model*, published by
//! OpenAI in 2019. It has one task: given a text as a list of *tokens* (words or parts of words), predict how
//! likely each possible token is to come next. It is a *transformer*, a stack of *blocks* of the same form;
//! each block is an attention layer followed by an *MLP*. All its matrices are filled with *weights*, numbers
//! that were adjusted in *training* until the model predicted a large collection of texts well. One run from
//! tokens to scores is a *forward pass*:
//!
//! ```text
//! text ─▶ tokens ─▶ one vector per token, plus one for its position
//!          ─▶ block 0 ─▶ block 1 ─▶ …       each block adds to every token's vector:
//!                                           attention adds information from earlier tokens
//!                                           the MLP adds what it computes from the vector itself
//!          ─▶ layer norm ─▶ LM head ─▶ a score for every token ─▶ the next token ─▶ text
//! ```
//!
//! In a terminal, `hornbook explain "Once upon a time"` shows the same steps with the values of each. The
//! source file [`model::reference`](crate::model::reference) is the same again in sixty lines of code: read
//! it beside these pages. Shapes are named as in GPT-2's configuration: `n_embd` is the length of a token's
//! vector (256 for fable), `n_layer` the number of blocks (6), `n_head` the number of attention heads per
//! block (4).

pub mod attention;
pub mod cache;
pub mod embedding;
pub mod kernels;
pub mod layer_norm;
pub mod lm_head;
pub mod mlp;
pub mod positions;
pub mod sampling;
pub mod tokens;
